#!/bin/sh
# Install what the test of napari needs: napari with its nnInteractive plugin in a venv of its own, and a display that is
# not there (Xvfb, as root on Debian and its kin). Where that is impossible the test skips and says what is missing.
VENV=build/desktop/venv
PACKAGES="xvfb xauth libegl1 libgl1 libopengl0 libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libxcb-shape0 libdbus-1-3"
if [ ! -e "$VENV/bin/napari" ]; then
    mkdir -p build/desktop
    "${1:-python3}" -m venv "$VENV" && "$VENV/bin/python" -m pip install -q "napari[pyqt6]>=0.6" "napari-nninteractive>=2.5,<3" ||
        echo "napari could not be installed into $VENV."
fi
command -v xvfb-run > /dev/null && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "Xvfb is missing; install it yourself: apt-get install $PACKAGES"
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
apt-get update -q > /dev/null && apt-get install -q -y --no-install-recommends $PACKAGES > /dev/null ||
    echo "apt-get could not install $PACKAGES; the test of napari is skipped."

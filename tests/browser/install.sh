#!/bin/sh
# Install what tests need and pip does not bring: Chromium, Orthanc and its DICOMweb plugin, and dciodvfy, which checks
# DICOM objects; or the packages named. Possible as root on Debian and its kin; elsewhere these tests skip and say what
# is missing.
PACKAGES="${*:-chromium fonts-dejavu-core orthanc orthanc-dicomweb dicom3tools}"
PLUGIN=/usr/share/orthanc/plugins/libOrthancDicomWeb.so
if command -v dciodvfy > /dev/null && { [ $# -gt 0 ] || { command -v chromium > /dev/null && [ -e "$PLUGIN" ]; }; }; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "Something is missing; install it yourself: apt-get install $PACKAGES"
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
apt-get update -q > /dev/null && apt-get install -q -y --no-install-recommends $PACKAGES > /dev/null ||
    echo "apt-get could not install $PACKAGES; what needs them is skipped."

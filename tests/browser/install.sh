#!/bin/sh
# Install what the browser tests need and pip does not bring: Chromium, Orthanc and its DICOMweb plugin.
# Possible as root on Debian and its kin; elsewhere the tests skip and say what is missing.
PLUGIN=/usr/share/orthanc/plugins/libOrthancDicomWeb.so
if command -v chromium > /dev/null && [ -e "$PLUGIN" ]; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "Chromium or Orthanc is missing; install them yourself: apt-get install chromium orthanc orthanc-dicomweb"
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q > /dev/null &&
    apt-get install -q -y --no-install-recommends chromium fonts-dejavu-core orthanc orthanc-dicomweb > /dev/null ||
    echo "apt-get could not install Chromium and Orthanc; what needs them is skipped."

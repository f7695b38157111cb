#!/bin/sh
# Makes configure from configure.ac; needed after a git clone only.
cd "$(dirname "$0")" && exec autoreconf --install "$@"

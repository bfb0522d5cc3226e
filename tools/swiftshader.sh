#!/usr/bin/env bash
# Prints the exports with which WebGPU computes on SwiftShader, the Vulkan driver in software that Debian ships with
# Chromium: eval "$(tools/swiftshader.sh)". Fetches it where apt can and unpacks it into the cache; exits 3, with one
# line on stderr, where it cannot be had.
set -uo pipefail

cache=${DUANZI_CACHE:-$HOME/.cache/duanzi}/swiftshader
driver=usr/lib/chromium/vk_swiftshader_icd.json

find_driver() {
  for root in "" "$cache"; do
    [ -f "$root/$driver" ] && [ -f "$root/usr/lib/chromium/libvulkan.so.1" ] && { echo "$root/usr/lib/chromium"; return; }
  done
  return 1
}

fetch() {
  local work status=0
  work=$(mktemp -d)
  (
    cd "$work" && chmod 755 . &&
      { apt-get download chromium-common || { apt-get update && apt-get download chromium-common; }; } &&
      dpkg-deb -x chromium-common_*.deb unpacked &&
      [ -f "unpacked/$driver" ] && mkdir -p "$(dirname "$cache")" && rm -rf "$cache" && mv unpacked "$cache"
  ) >/dev/null 2>&1 || status=$?
  rm -rf "$work"
  return "$status"
}

folder=$(find_driver) || { fetch && folder=$(find_driver); } || {
  echo "SwiftShader is not here and apt cannot fetch it (package chromium-common): webgpu is not tested." >&2
  exit 3
}
echo "export VK_ICD_FILENAMES='$folder/vk_swiftshader_icd.json'"
echo "export LD_LIBRARY_PATH='$folder'\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"

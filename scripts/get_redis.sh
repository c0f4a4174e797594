#!/usr/bin/env bash
# Finds the Redis server that the tests use, or unpacks Debian's packages of it into a cache folder.
# Nothing is installed, and root is only needed where apt has no package lists yet.
set -euo pipefail

folder=${XDG_CACHE_HOME:-$HOME/.cache}/antiphon/redis

if command -v redis-server >/dev/null || [ -x "$folder/usr/bin/redis-server" ]; then
	exit 0
fi
if ! command -v apt-get >/dev/null; then
	echo "redis: no redis-server here, and no apt-get to get one: install Redis 7 yourself" >&2
	exit 1
fi
if ! apt-cache show redis-tools >/dev/null 2>&1; then
	if [ "$(id -u)" -ne 0 ] || ! apt-get update -qq; then
		echo "redis: apt knows no package redis-tools: run 'apt-get update' as root, once" >&2
		exit 1
	fi
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
# What the server needs and is not installed. The server itself is in redis-tools.
needed=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
	--no-replaces --no-enhances redis-tools redis-server | grep -E '^[a-z0-9]' | grep -v ':' | sort -u)
missing=()
for package in $needed; do
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
		missing+=("$package")
done
echo "redis: unpacking ${#missing[@]} packages into $folder"
apt-get download -qq -o APT::Sandbox::User=root "${missing[@]}"
mkdir unpacked
for archive in *.deb; do
	dpkg -x "$archive" unpacked
done
mkdir -p "$(dirname "$folder")"
rm -rf "$folder"
mv unpacked "$folder"

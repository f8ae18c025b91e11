#!/bin/sh
# Prints the address of the Debian mirror that this machine uses for Debian
# itself, without a slash at its end. MIRROR names another one. It writes
# nothing and does not use the network.
set -eu

if [ -n "${MIRROR:-}" ]; then
	echo "${MIRROR%/}"
	exit 0
fi

# What apt has fetched says whose it is; security updates and backports have
# labels of their own, other people's repositories another origin.
# shellcheck disable=SC2016 # apt-get expands them
mirror=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' |
	sed -n 's,^Debian|Debian|,,p' | grep -v '^cdrom:' | head -n 1) || true

# Where nothing was fetched yet, the first source with a suite of Debian's name.
# shellcheck disable=SC1091 # not ours
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
for suite in ${codename:+"$codename"} stable oldstable testing unstable sid; do
	[ -z "$mirror" ] || break
	mirror=$(apt-get update --print-uris | sed -n "s,^'\(.*\)/dists/$suite/InRelease'.*,\1,p" | head -n 1)
done

if [ -z "$mirror" ]; then
	echo "mirror: apt's sources name no Debian mirror (apt-get update --print-uris); name one: MIRROR=ADDRESS" >&2
	exit 1
fi
echo "${mirror%/}"

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# remove takes a tree away: its name at once, the rest in the background, and nothing but it.
#
# As root the whole story runs in a mount namespace of its own, so that no mount can stay behind.
if [ "$(id -u)" = 0 ] && [ -z "${DIRCACHE_STORY_UNSHARED-}" ] && unshare -m true 2>/dev/null; then
	DIRCACHE_STORY_UNSHARED=1 exec unshare -m --propagation private bash "$0" "$@"
fi
. "$(dirname "$0")/lib.sh"

start_daemon
out=$dir/out
src=$dir/src
mkdir "$out"
make_folder "$src" 'a: hello' 'run*: hello' 'sub/deep/b: hello' 'empty:' 'link@ a' 'none/'
for i in {1..20}; do
	mkdir -p "$src/many/$i"
	(cd "$src/many/$i" && seq "$i" $((i + 99)) | split -l 1 -a 2 - f)
done
tree=$(dircache put "$src") || die 'put failed'
hello=$(printf hello | sha256sum)
hello=${hello%% *}/5

dircache materialize "$tree" "$out/one"
dircache materialize "$tree" "$out/two"
check 'a tree is removed' prints '' dircache remove "$out/one"
check 'its name is free at once' absent "$out/one"
check 'for another, at once' dircache materialize "$tree" "$out/one"
check 'the rest of it goes too' eventually 5 no_litter "$out"
check 'the store keeps its inodes' links_are 5 "$(blob_path blobs "$hello")"
check 'with their modes' mode_is 444 "$(blob_path blobs "$hello")" "$out/two/a" "$out/two/sub/deep/b"
check 'executables too' mode_is 555 "$(blob_path exec "$hello")" "$out/two/run"
check 'another copy is whole' same_tree "$src" "$out/two"

chmod 555 "$out/one/sub" "$out/one/sub/deep"
chmod 000 "$out/one/many/7"
echo private >"$out/one/many/8/private"
mkdir -p "$out/one/new/folder"
check 'a tree with more in it, and folders closed, is removed' dircache remove "$out/one"
check 'wholly' eventually 5 prints two ls -A "$out"

mkdir "$dir/beside"
echo kept >"$dir/beside/kept"
ln -s "$dir/beside" "$out/two/away"
ln -s ../../beside "$out/two/sub/up"
check 'a tree with symlinks in it is removed' dircache remove "$out/two"
check 'wholly' eventually 5 prints '' ls -A "$out"
check 'and nothing of what they point to' prints kept cat "$dir/beside/kept"

ln -s "$dir/beside" "$out/symlink"
dircache remove "$out/symlink" >/dev/null 2>&1
check 'a symlink for a target is not followed' prints kept cat "$dir/beside/kept"
check 'its folder is untouched' prints kept ls -A "$dir/beside"
rm -f "$out/symlink"

dircache materialize --file "$hello" "$out/file"
check 'a file is removed' dircache remove "$out/file"
check 'by name' absent "$out/file"
check_fails 'what is not there cannot be removed' complains dircache remove "$out/nothing"
check 'and is named' says nothing fails dircache remove "$out/nothing"
check_fails "nor '..'" dircache remove "$out/.."
check_fails "nor '.'" eval '(cd "$out" && dircache remove .)'
check_fails "nor '/'" dircache remove /

# ---- the store ----

make_folder "$store/stranger" 'a: hello'
mv "$store/stranger" "$dir/beside/"
for target in "$store" "$dir" "$store/blobs" "$store/exec" "$store/blobs/${hello:0:2}" \
	"$store/staging" "$store/tmp" "$store/trash"; do
	[ -e "$target" ] || continue
	check "${target/$dir/DIR} is refused" exits 1 complains dircache remove "$target"
	check 'and still there' test -d "$target"
done
ln -s "$store" "$dir/way"
check 'through a symlink on the way too' exits 1 complains dircache remove "$dir/way/blobs"
check 'a blob of the store is refused' exits 1 complains dircache remove "$(blob_path blobs "$hello")"
check 'and is still there' test -f "$(blob_path blobs "$hello")"
check 'the store serves on' dircache materialize "$tree" "$out/one"
check 'whole' same_tree "$src" "$out/one"

# ---- mounts ----

if [ -n "${DIRCACHE_STORY_UNSHARED-}" ] &&
	mkdir "$dir/side" "$out/mount" && mount -t tmpfs none "$out/mount"; then
	echo kept >"$out/mount/kept"
	check 'a mount point is refused' exits 1 complains dircache remove "$out/mount"
	check 'and untouched' prints kept cat "$out/mount/kept"
	umount "$out/mount"
	rmdir "$out/mount"
	mount -t tmpfs none "$dir/side"
	echo kept >"$dir/side/kept"
	mkdir "$out/one/inside"
	mount --bind "$dir/side" "$out/one/inside"
	dircache remove "$out/one" >/dev/null 2>&1
	sleep 0.5
	check 'a mount inside a tree is not crossed' prints kept cat "$dir/side/kept"
	mount --bind "$dir/beside" "$dir/beside"
	check 'a bind mount of a folder onto itself is refused' \
		exits 1 complains dircache remove "$dir/beside"
	check 'and untouched' prints kept cat "$dir/beside/kept"
	umount "$dir/beside"
	# The background may still have the folder open.
	for mounted in $(awk -v dir="$dir/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | tac); do
		umount -l "$mounted"
	done
else
	skip 'a mount point is refused' 'no mount namespace of our own'
fi
finish

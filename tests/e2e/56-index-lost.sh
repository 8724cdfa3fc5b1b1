#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The index is lost, or damaged, or of a newer version; the machine crashes and takes bytes with it. What is in
# the store stays there, what is damaged is never served, and what is not ours to touch is not touched.
. "$(dirname "$0")/lib.sh"

sql() { # STATEMENT
	"${python[@]}" -c 'import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as db:
	for row in db.execute(sys.argv[2]): print(*row)' "$store/index.sqlite" "$1"
}

# Other bytes, and all that stat(1) tells is as it was: what a crash can leave of a file.
damage() { # blobs|exec DIGEST
	"${python[@]}" -c 'import os, sys
path = sys.argv[1]
st = os.stat(path)
os.chmod(path, 0o644)
with open(path, "r+b") as file: file.write(b"\0\0")
os.chmod(path, st.st_mode & 0o777)
os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))' "$(blob_path "$@")"
}

blobs_are() { # N
	[ "$(counter blobs)" = "$1" ]
}

log_says() { # TEXT
	grep -qF "$1" "$daemon_log" || { cat "$daemon_log"; return 1; }
}

# Names, sizes, times and bytes of the store's own files.
snapshot() {
	(cd "$store" && find . -printf '%p %s %T@ %C@ %m\n' | sort && sha256sum -- index.sqlite* tags lock)
}

start_daemon
out=$dir/out
mkdir "$out"
make_folder "$dir/src" 'a: alpha' 'sub/b: beta' 'sub/c*: gamma'
tree=$(dircache put "$dir/src")
kept=$(dircache put --tag keep/me "$dir/src/sub")
make_folder "$dir/lost" 'only: in this one'
blobs=$(counter blobs)
stop_daemon

rm "$store"/index.sqlite*
: >"$daemon_log"
check 'without its index the daemon starts' start_daemon
check 'the log says what that means' log_says 'the store has no index'
check 'a tree appears at once' dircache materialize "$tree" "$out/one"
check 'whole' same_tree "$dir/src" "$out/one"
check 'as a miss: it is not known any more' counters_are tree_misses=1 tree_hits=0
check 'the tag is there' says "$kept" exits 0 dircache tags
check 'and names its tree' dircache materialize keep/me "$out/two"
check 'all blobs come back' eventually 20 blobs_are "$blobs"
check 'and stay' eval 'restart && eventually 20 blobs_are "$blobs"'
check 'and the trees' eval 'dircache materialize "$tree" "$out/three" && counters_are tree_hits=1'

stop_daemon
printf 'this is no database' | dd of="$store/index.sqlite" conv=notrunc status=none
: >"$daemon_log"
check 'with a damaged index the daemon starts' start_daemon
check 'the log says where the damaged one is' log_says "set aside as 'index.sqlite.damaged-1'"
check 'it is there' test -s "$store/index.sqlite.damaged-1"
check 'a tag appears' dircache materialize keep/me "$out/four"
check 'whole' same_tree "$dir/src/sub" "$out/four"
check 'all blobs come back' eventually 20 blobs_are "$blobs"

# By a full disk, say, or by the disk itself: cut, and with other bytes in its pages.
cut_short() {
	truncate -s 5000 "$store/index.sqlite"
}

flip_bits() {
	head -c 8192 /dev/urandom | dd of="$store/index.sqlite" bs=4096 seek=1 conv=notrunc status=none
}

n=1
for damage in cut_short flip_bits; do
	stop_daemon
	"$damage"
	n=$((n + 1))
	: >"$daemon_log"
	check "with an index that was hit ($damage) the daemon starts" start_daemon
	check 'the log says that it is damaged' log_says 'it is damaged'
	check 'and where it is now' log_says "set aside as 'index.sqlite.damaged-$n'"
	check 'and what is done without it' log_says 'the store has no index'
	check 'a tag appears' dircache materialize keep/me "$out/$damage"
	check 'whole' same_tree "$dir/src/sub" "$out/$damage"
	check 'all blobs come back' eventually 20 blobs_are "$blobs"
	check 'nothing is wrong with the store' dircache verify
done

# The bytes of a blob that was stored just now have not reached the disk when the machine crashes.
check 'another stop and start' restart
one=$(dircache put "$dir/src/a")
make_folder "$dir/fresh" 'good: it was written' 'bad: it was not'
fresh=$(dircache put "$dir/fresh")
bad=$(digest_of "$dir/fresh/bad")
kill_daemon
sql "UPDATE meta SET value = 'another' WHERE key = 'boot'"
damage blobs "$bad"
: >"$daemon_log"
check 'after a crash of the machine the daemon starts' start_daemon
check 'the log says what that means' log_says 'the machine has crashed'
check 'a file that lost its bytes is not served' exits 3 dircache cat "$bad"
check 'nor in a tree, which names it' says "$bad" exits 3 dircache materialize "$fresh" "$out/fresh"
check 'nor as a file' exits 3 dircache materialize --file "$bad" "$out/bad"
check 'nothing is left of it' absent "$out/fresh" "$out/bad"
check 'it is counted' eventually 20 counters_are tampered_blobs=1
check 'and gone' absent "$(blob_path blobs "$bad")"
check 'what is right is served' prints 'it was written' dircache cat "$(digest_of "$dir/fresh/good")"
check 'so is what was there before' eval "dircache cat '$one' | cmp - '$dir/src/a'"
check 'the tree that has only those is there' dircache materialize "$tree" "$out/five"
check 'putting the tree again heals it' prints "$fresh" dircache put "$dir/fresh"
check 'and it appears' dircache materialize "$fresh" "$out/fresh"
check 'whole' same_tree "$dir/fresh" "$out/fresh"
check 'nothing is wrong with the store' dircache verify

# It was evicted and stored again just before the crash, which took the new row and left the old one and the name.
again=$(digest_of "$dir/src/a")
lost=$(dircache put --tag lose/me "$dir/lost")
stop_daemon
check 'each row names its inodes' prints 0 sql "SELECT count(*) FROM blobs
	WHERE kinds & 1 AND NOT plain_inode OR kinds & 2 AND NOT exec_inode"
start_daemon
kill_daemon
sql "UPDATE meta SET value = 'another' WHERE key = 'boot'"
path=$(blob_path blobs "$again")
cp -p "$path" "$path.new"
mv "$path.new" "$path"
damage blobs "$again"
rm "$(blob_path blobs "$lost")"
: >"$daemon_log"
check 'after another crash the daemon starts' start_daemon
check 'an old row does not speak for a new file' exits 3 dircache cat "$again"
check 'nor in a tree' says "$again" exits 3 dircache materialize "$tree" "$out/seven"
check 'it alone was wrong' eventually 20 counters_are tampered_blobs=1
check 'putting the tree again heals it' prints "$tree" dircache put "$dir/src"
check 'the log tells which tags lost what they name' eventually 20 log_says '1 tags name what is not in the store any more: lose/me;'
check 'verify does, too' says 'lose/me' exits 1 dircache verify
check 'the tag stays' says "$lost" exits 0 dircache tags
check 'and has its tree again when that is put' dircache put "$dir/lost"
check 'nothing is wrong with the store' dircache verify

stop_daemon
sql 'PRAGMA user_version = 99'
before=$(snapshot)
check 'a store of a newer version is refused' says 'newer' fails dircached --store "$store" --socket "$socket"
check 'and not touched' prints "$before" snapshot
sql 'PRAGMA user_version = 2'
check 'back in its own version it is as it was' eval 'start_daemon && dircache materialize keep/me "$out/six"'
finish

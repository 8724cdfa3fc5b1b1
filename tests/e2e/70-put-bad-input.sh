#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What cannot be stored is refused by name, and leaves no tree; what changes meanwhile is never stored torn.
. "$(dirname "$0")/lib.sh"

start_daemon
src=$dir/src
make_folder "$src" 'a: one' 'sub/b: two'

refused_by_name() { # NAME
	says "$1" exits 1 dircache put "$src" && counters_are trees=0 tags=0
}

mkfifo "$src/sub/fifo"
check 'a FIFO in a tree is refused by name, and not waited for' refused_by_name sub/fifo
rm "$src/sub/fifo"
"${python[@]}" -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$src/sub/socket"
check 'a socket in a tree is refused by name' refused_by_name sub/socket
check 'by itself too' says "$src/sub/socket" exits 1 dircache put "$src/sub/socket"
rm "$src/sub/socket"
if mknod "$src/sub/device" c 1 3 2>/dev/null; then
	check 'a device in a tree is refused by name' refused_by_name sub/device
	rm "$src/sub/device"
else
	skip 'a device in a tree is refused by name' 'no right to make one'
fi
check 'a device by itself is refused' says /dev/zero exits 1 timeout 20 dircache put /dev/zero
check 'one bad path among good ones fails' exits 1 dircache put "$src/a" "$src/nothing"
check 'a path with a tag to many is a usage error' exits 2 dircache put --tag t "$src/a" "$src/sub"
check_fails 'a tag of a wrong form is refused' dircache put --tag 'no good' "$src"
check 'nothing was cached by all that' counters_are trees=0 tags=0

check 'a single file can be put' prints "$(digest_of "$src/a")" dircache put "$src/a"
check 'and is no tree' counters_are trees=0
ln -s src/a "$dir/to-a"
check 'a symlink to a file by itself is followed' prints "$(digest_of "$src/a")" dircache put "$dir/to-a"
check 'several paths print a digest each, in order' \
	prints "$(digest_of "$src/sub/b")"$'\n'"$(digest_of "$src/a")" dircache put "$src/sub/b" "$src/a"
check 'a tree can be put' dircache put --tag first "$src"
check 'under a tag' dircache materialize first "$dir/out"
check 'which names it' same_tree "$src" "$dir/out"
rm -r "$dir/out"
echo three >"$src/c"
check 'another tree' dircache put --tag first "$src"
check 'takes the tag over' dircache materialize first "$dir/out"
check 'at once' same_tree "$src" "$dir/out"
check 'there is one tag' counters_are tags=1 trees=2

# ---- many at once ----

for i in {1..300}; do
	mkdir -p "$src/many/$((i % 10))"
	echo "$i" >"$src/many/$((i % 10))/$i"
done
counters_note
check 'eight clients put the same tree at once' together 8 dircache put "$src"
check 'and hear the same digest' prints 1 eval 'sort -u "$dir/together/"[1-8] | wc -l'
check 'it is one tree' counters_added trees=1
check 'whole' dircache has --tree "$(cat "$dir/together/1")"
check 'of one blob for each content' counters_added blobs=$((300 + 10 + 1 + 1))

# ---- while it is put ----

# A file of one letter throughout, rewritten in place with the next letter again and again. For the
# background: it takes the shell's place, so that $! is what must be ended.
rewrite() { # FILE
	exec "${python[@]}" - "$1" <<-'END'
	import itertools, os, sys, time
	fd = os.open(sys.argv[1], os.O_RDWR)
	for letter in itertools.cycle(b"ABCDEFGH"):
	    block = bytes([letter]) * 65536
	    for offset in range(0, 16 << 20, 65536):
	        os.pwrite(fd, block, offset)
	    time.sleep(0.2)
	END
}
head -c $((16 << 20)) /dev/zero | tr '\0' A >"$dir/torn"
rewrite "$dir/torn" &
writer=$!
# All of one letter; or the next one in front of it, which is a state of the file in the middle of a rewrite.
# The other way round there never was.
one_state() { # DIGEST
	dircache cat "$1" >"$dir/bytes" && "${python[@]}" - "$dir/bytes" <<-'END'
	import sys
	data = open(sys.argv[1], "rb").read()
	rest = data.lstrip(data[:1])
	sys.exit(rest.lstrip(rest[:1]) != b"" or rest[:1] + data[:1] not in b"ABCDEFGHA")
	END
}
torn=0 stored=0 refused=0
: >"$dir/unnamed"
for i in {1..12}; do
	if digest=$(dircache put "$dir/torn" 2>"$dir/stderr"); then
		stored=$((stored + 1))
		one_state "$digest" || torn=$((torn + 1))
	else
		refused=$((refused + 1))
		grep -q torn "$dir/stderr" || cat "$dir/stderr" >>"$dir/unnamed"
	fi
done
kill "$writer"
wait "$writer" 2>/dev/null
echo "# while it was rewritten: $stored times stored, $refused times refused"
check 'a file that is rewritten is stored in one state, or refused' [ "$torn" = 0 ]
check 'by name' prints '' cat "$dir/unnamed"
check 'left alone it can be put' prints "$(digest_of "$dir/torn")" dircache put "$dir/torn"

# Files that come and go, some of them for folders.
churn() { # FOLDER
	exec "${python[@]}" - "$1" <<-'END'
	import itertools, os, sys
	os.chdir(sys.argv[1])
	for i in itertools.count():
	    name = "churn%d" % (i % 50)
	    try:
	        os.unlink(name)
	    except FileNotFoundError:
	        pass
	    except IsADirectoryError:
	        os.rmdir(name)
	    if i % 3 == 0:
	        os.mkdir(name)
	    elif i % 3 == 1:
	        with open(name, "w") as file:
	            file.write(str(i % 7))
	END
}
churn "$src/many" &
writer=$!
bad=0
for i in {1..15}; do
	digest=$(dircache put "$src" 2>"$dir/stderr")
	outcome=$?
	case $outcome in
	0) dircache has --tree "$digest" >>"$dir/stderr" || bad=1 ;;
	1) grep -q churn "$dir/stderr" || bad=1 ;;
	*) bad=1 ;;
	esac
	[ "$bad" = 0 ] || break
done
kill "$writer"
wait "$writer" 2>/dev/null
check 'files that come and go: a whole tree, or an error that names one' eval \
	'cat "$dir/stderr"; echo "exit status $outcome"; [ "$bad" = 0 ]'
find "$src/many" -name 'churn*' -delete

# ---- what the client may not read ----

unreadable() { # COMMAND...: put as somebody who may not read it
	says secret exits 1 "$@" dircache put "$src" &&
		says "$src/secret" exits 1 "$@" dircache put "$src/secret"
}
echo secret >"$src/secret"
chmod 000 "$src/secret"
claim='a file that the client may not read is refused by name'
if ! is_root; then
	check "$claim" unreadable env
else
	mkdir -m 755 "$dir/n"
	chown 65534:65534 "$dir/n"
	chmod 711 "$dir"
	if nobody_can "$dir/n"; then
		stop_daemon
		store=$dir/n/store
		export DIRCACHE_SOCKET=$dir/n/s
		socket=$DIRCACHE_SOCKET
		daemon_as=("${as_nobody[@]}")
		start_daemon
		check "$claim" unreadable "${as_nobody[@]}"
		check 'and nothing is cached' counters_are trees=0
		chmod 644 "$src/secret"
		check 'a readable one can be put by nobody' "${as_nobody[@]}" dircache put "$src"
	else
		skip "$claim" 'nobody cannot run the programs'
	fi
fi
finish

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The command line: help, versions, exit statuses, and where output goes.
. "$(dirname "$0")/lib.sh"

commands='ping put materialize remove cat ls has tag tags stats trees stop'
absent_digest=$(printf '%064d/5' 7)

to_full() {
	"$@" >/dev/full
}

closed_stdout() {
	"$@" >&-
}

# ---- without a daemon ----

check 'dircache --help lists the commands' says 'materialize' exits 0 dircache --help
check 'dircached --help lists the options' says '--store' exits 0 dircached --help
check 'dircache --version names itself' says 'dircache ' exits 0 dircache --version
check 'dircached --version is the same' prints "$(dircache --version)" dircached --version
for command in $commands; do
	check "dircache --help names $command" says "$command" exits 0 dircache --help
	check "$command --help says how to use it" says "$command" exits 0 dircache "$command" --help
	check "$command with an unknown option is a usage error" \
		exits 2 complains dircache "$command" --no-such-option
done
check 'no command at all is a usage error' exits 2 complains dircache
check 'an unknown command is named' says 'frobnicate' exits 2 dircache frobnicate
check 'an unknown option is named' says 'no-such-option' exits 2 dircache --no-such-option ping
check 'dircached refuses an unknown option' says 'no-such-option' exits 2 dircached --no-such-option
check 'dircached refuses operands' exits 2 complains dircached something
for command in put materialize remove cat ls has tag; do
	check "$command without operands is a usage error" exits 2 complains dircache "$command"
done
check 'materialize needs a target' exits 2 complains dircache materialize "$absent_digest"
check 'ping takes no operand' exits 2 complains dircache ping something
check 'ping --wait wants seconds' says 'soon' exits 2 dircache ping --wait soon
check 'verify --rate wants a size' says 'fast' exits 2 dircache verify --rate fast
check 'a tag wants a digest' says 'digest' exits 2 dircache tag name
check 'its deletion does not' says 'alone' exits 2 dircache tag -d name "$absent_digest"
check 'each command names itself too' says 'dircache ' exits 0 dircache ping --version
check 'help to a full device fails' exits 1 to_full dircache --help
check 'the version to a full device fails' exits 1 to_full dircache --version

check 'no daemon at --socket: status 4' exits 4 complains dircache --socket "$dir/nobody" ping
check 'which names the socket' says "$dir/nobody" exits 4 dircache --socket "$dir/nobody" stats
check 'no daemon at DIRCACHE_SOCKET: status 4' \
	exits 4 complains env DIRCACHE_SOCKET="$dir/nobody" dircache ping
check 'and none was started' absent "$dir/nobody"
check 'ping --wait gives up in time' exits 4 timeout 20 dircache --socket "$dir/nobody" ping --wait 1
check 'a socket path over 107 bytes without a daemon: status 4' \
	exits 4 complains dircache --socket "$dir/$(printf '%0150d' 0)/s" ping

# ---- with one ----

start_daemon
check '--socket finds it' env -u DIRCACHE_SOCKET dircache --socket "$socket" ping
check '--socket wins over DIRCACHE_SOCKET' env DIRCACHE_SOCKET="$dir/nobody" dircache --socket "$socket" ping
check 'ping prints the version' says '.' exits 0 dircache ping
check 'ping --json tells the protocol' says '"protocol"' exits 0 dircache --json ping

check 'cat of an absent blob: status 3, by name' says "$absent_digest" exits 3 dircache cat "$absent_digest"
check 'ls of an absent tree: status 3, by name' says "$absent_digest" exits 3 dircache ls "$absent_digest"
check 'materialize of an absent tree: status 3, by name' \
	says "$absent_digest" exits 3 dircache materialize "$absent_digest" "$dir/out"
check 'materialize --file of an absent blob: status 3, by name' \
	says "$absent_digest" exits 3 dircache materialize --file "$absent_digest" "$dir/out"
check 'has of an absent blob prints it: status 3' says "$absent_digest" exits 3 dircache has "$absent_digest"
check 'an unknown tag: status 3, by name' \
	says 'no-such-tag' exits 3 dircache materialize no-such-tag "$dir/out"
check 'nothing appeared' absent "$dir/out"
for bad in 'zz/5' "$(printf '%063d/5' 7)" "$(printf '%064d' 7)" "$(printf '%064d/' 7)" \
	"$(printf '%064d/-5' 7)" "$(printf '%064d/05' 7)" "$(printf '%064d/5x' 7)" \
	"$(printf '%064d/99999999999999999999' 7)" \
	"$(printf '%064d/5' 7 | tr 0 A)"; do
	check_fails "'$bad' is no digest" complains dircache cat "$bad"
	check 'which is said with the word itself' says "$bad" fails dircache has "$bad"
done

tree=$(make_tree 'a: hello')
blob=$(printf hello | sha256sum)
blob=${blob%% *}/5
check 'cat prints the bytes alone' prints hello dircache cat "$blob"
dircache tag some "$tree"
check 'cat to a full device fails' exits 1 to_full dircache cat "$blob"
for command in ping stats trees tags "ls $tree" "put $dir/made"; do
	# shellcheck disable=SC2086 # words
	check "$command to a full device fails" exits 1 to_full dircache $command
	# shellcheck disable=SC2086
	check "$command --json to a full device fails" exits 1 to_full dircache --json $command
done
check_fails 'closed standard output is noticed' closed_stdout dircache stats
check 'a reader that goes away does not hang it' timeout 20 bash -c 'dircache stats | true'
check 'a file that does not exist cannot be put, and is named' \
	says "$dir/nothing" exits 1 dircache put "$dir/nothing"
what_is_made_goes() {
	dircache --json tag soon-gone "$blob" && dircache --json tag -d soon-gone &&
		dircache materialize --file "$blob" "$dir/soon-gone" && dircache --json remove "$dir/soon-gone"
}
check 'tag, tag -d and remove have answers, too' prints '{}
{}
{}' what_is_made_goes
spoil() {
	chmod 600 "$(blob_path blobs "$blob")" && echo hullo >"$(blob_path blobs "$blob")"
}
check 'somebody writes to a blob' spoil
check 'verify tells what it would repair' says 'bytes' exits 1 dircache verify
check 'and what it repaired' says ' repaired' exits 0 dircache verify --repair
check 'words behind -- are operands' says '--odd' exits 1 dircache put -- --odd
check 'stop --json prints its answer' prints '{}' dircache --json stop
check 'and the daemon ends' wait "$daemon_pid"
daemon_pid=
check 'its socket is gone' absent "$socket"
check 'no daemon any more: status 4' exits 4 dircache ping


# ---- a long way to the socket ----

socket=$dir/$(printf 'x%.0s' {1..150})/s
mkdir "${socket%/s}"
export DIRCACHE_SOCKET=$socket
start_daemon
check 'a daemon listens at a path over 107 bytes' test -S "$socket"
check 'and is found there' dircache ping
check 'by --socket too' env -u DIRCACHE_SOCKET dircache --socket "$socket" ping
finish

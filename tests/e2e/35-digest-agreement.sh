#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A tree's digest is the one that any other implementation of the Remote Execution API computes.
. "$(dirname "$0")/lib.sh"

command -v "${python[0]}" >/dev/null || skip_story "no ${python[0]}"
start_daemon

src=$dir/src
make_folder "$src" 'plain: hello' 'run*: hello' 'empty:' 'Zebra: z' 'a.b: dots sort before slashes' \
	'a/b: 1' 'a-b/c: 2' 'a/deeper/and/deeper: 3' 'nothing/' 'ünïcödé: 4' '日本/語: 5' 'link@ plain' \
	'a/dangling@ no where' 'lönk@ /ö'
head -c 3000000 /dev/zero >"$src/a/zeros"
for i in {1..300}; do
	echo "$i" >"$src/a-b/$i"
done

reapi() {
	"${python[@]}" "$here/reapi.py" "$@"
}

# With Google's library and messages generated from a .proto file.
google() {
	(cd "$dir/generated" && reapi digest --protobuf "$1" "$src")
}

tree=$(dircache put "$src") || die 'put failed'
check 'by hand, from the description of the wire format' prints "$tree" reapi digest "$src"
check 'the empty Directory is the empty blob' \
	prints "$(digest_of /dev/null)" dircache put "$src/nothing"

mkdir "$dir/generated"
claim="by Google's library, with our subset of the messages"
if ! "${python[@]}" -c 'import google.protobuf' 2>/dev/null; then
	skip "$claim" 'no google.protobuf for Python'
elif ! command -v protoc >/dev/null; then
	skip "$claim" 'no protoc'
else
	check 'protoc takes our subset of the messages' \
		protoc -I "$top/common" --python_out "$dir/generated" "$top/common/reapi.proto"
	check "$claim" prints "$tree" google reapi_pb2
fi

claim="by Google's library, with BuildStream's messages"
module=buildstream._protos.build.bazel.remote.execution.v2.remote_execution_pb2
if "${python[@]}" -c "import $module" 2>/dev/null; then
	check "$claim" prints "$tree" google "$module"
else
	skip "$claim" 'no BuildStream 1 here'
fi

# The other direction: messages that others made are trees to us.
check 'messages made by others, stored as blobs' eval \
	'reapi messages "$src" "$dir/messages" && dircache put "$dir/messages"/*'
restart
check 'the tree that they describe appears' dircache materialize "$(reapi digest "$src")" "$dir/out"
check 'and is the one that was put' same_tree "$src" "$dir/out"
finish

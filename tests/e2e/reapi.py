# SPDX-License-Identifier: Apache-2.0
"""Trees as the Remote Execution API v2 has them, computed by nothing of ours.

    reapi.py digest FOLDER                     the digest of the root Directory, encoded by hand
    reapi.py digest --protobuf MODULE FOLDER   the same, encoded by Google's library with a generated module
    reapi.py messages FOLDER OUT               write each Directory message to OUT/HASH; print as digest does
    reapi.py flat FOLDER OUT                   link each file, once for each content, into OUT
    reapi.py directory OUT [TYPE NAME DIGEST]  write one Directory with these entries (TYPE: file, exec,
                                               directory, or symlink with the target for DIGEST)
"""

import hashlib
import importlib
import os
import stat
import sys


def digest_of(data):
    return hashlib.sha256(data).hexdigest(), len(data)


def digest_of_file(path):
    hasher = hashlib.sha256()
    size = 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
            size += len(chunk)
    return hasher.hexdigest(), size


def text(digest):
    return "%s/%d" % digest


def parse(digest):
    hash_, size = digest.split("/")
    return hash_, int(size)


# ---- protobuf's wire format: a key is the field's number and its type, 0 for numbers and 2 for bytes ----


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def number_field(number, value):
    return varint(number << 3) + varint(value) if value else b""


def bytes_field(number, value):
    return varint(number << 3 | 2) + varint(len(value)) + value


def encode_digest(digest):
    return bytes_field(1, digest[0].encode()) + number_field(2, digest[1])


def encode_directory(files, directories, symlinks):
    """The canonical Directory: each list of tuples (name, digest or target, executable) sorted by name."""
    out = []
    for name, digest, executable in sorted(files):
        node = bytes_field(1, name) + bytes_field(2, encode_digest(digest)) + number_field(4, int(executable))
        out.append(bytes_field(1, node))
    for name, digest in sorted(directories):
        out.append(bytes_field(2, bytes_field(1, name) + bytes_field(2, encode_digest(digest))))
    for name, target in sorted(symlinks):
        out.append(bytes_field(3, bytes_field(1, name) + bytes_field(2, target)))
    return b"".join(out)


def fill(message, **values):
    """Set fields of a message, which may take texts as bytes: on the wire there is no difference."""
    for name, value in values.items():
        field = message.DESCRIPTOR.fields_by_name[name]
        if isinstance(value, bytes) and field.type == field.TYPE_STRING:
            value = value.decode()
        setattr(message, name, value)


def google_encoder(module):
    """The same by Google's library and a module that protoc made."""
    reapi = importlib.import_module(module)

    def encode(files, directories, symlinks):
        message = reapi.Directory()
        for name, (hash_, size), executable in sorted(files):
            node = message.files.add()
            fill(node, name=name, is_executable=executable)
            fill(node.digest, hash=hash_.encode(), size_bytes=size)
        for name, (hash_, size) in sorted(directories):
            node = message.directories.add()
            fill(node, name=name)
            fill(node.digest, hash=hash_.encode(), size_bytes=size)
        for name, target in sorted(symlinks):
            fill(message.symlinks.add(), name=name, target=target)
        return message.SerializeToString(deterministic=True)

    return encode


def tree(folder, encode=encode_directory, found=lambda digest, message: None):
    """The digest of a folder's root Directory; found() hears of each Directory on the way."""
    files, directories, symlinks = [], [], []
    for entry in os.scandir(folder):
        name = os.fsencode(entry.name)
        if entry.is_symlink():
            symlinks.append((name, os.fsencode(os.readlink(entry.path))))
        elif entry.is_dir():
            directories.append((name, tree(entry.path, encode, found)))
        else:
            mode = entry.stat(follow_symlinks=False).st_mode
            files.append((name, digest_of_file(entry.path), bool(mode & stat.S_IXUSR)))
    message = encode(files, directories, symlinks)
    digest = digest_of(message)
    found(digest, message)
    return digest


def write_messages(folder, out):
    def write(digest, message):
        with open(os.path.join(out, digest[0]), "wb") as file:
            file.write(message)

    os.makedirs(out, exist_ok=True)
    return tree(folder, found=write)


def write_flat(folder, out):
    os.makedirs(out, exist_ok=True)
    for top, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(top, name)
            if os.path.islink(path):
                continue
            place = os.path.join(out, digest_of_file(path)[0])
            if not os.path.exists(place):
                os.link(path, place)


def write_directory(out, words):
    files, directories, symlinks = [], [], []
    for type_, name, value in zip(*[iter(words)] * 3):
        name = os.fsencode(name)
        if type_ == "directory":
            directories.append((name, parse(value)))
        elif type_ == "symlink":
            symlinks.append((name, os.fsencode(value)))
        else:
            files.append((name, parse(value), type_ == "exec"))
    message = encode_directory(files, directories, symlinks)
    with open(out, "wb") as file:
        file.write(message)
    return digest_of(message)


def main(command, *args):
    if command == "digest" and args[0] == "--protobuf":
        sys.path.insert(0, os.getcwd())
        print(text(tree(args[2], google_encoder(args[1]))))
    elif command == "digest":
        print(text(tree(args[0])))
    elif command == "messages":
        print(text(write_messages(*args)))
    elif command == "flat":
        write_flat(*args)
    elif command == "directory":
        print(text(write_directory(args[0], args[1:])))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])

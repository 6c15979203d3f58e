# Takes $size bytes from standard input as program $program, once this was read: whoever sends them waits
# for "go". Nobody sees a half of it.
# Given: base, dir, program, size, digest.

umask 077
# A function: all of this was read before the first byte of the program is.
take() {
    made=$(mkdir -p "$base" 2>&1)
    [ -e "$base" ] || { echo "$made" >&2; return 73; }
    # Somebody else's directory of that name would see what we write.
    if [ -L "$base" ] || [ ! -d "$base" ] || [ ! -O "$base" ]; then
        echo "$base is there and is not a directory of this user" >&2
        return 73
    fi
    mkdir -p "$dir" || return 73
    echo go
    head -c "$size" > "$program.new" || { rm -f "$program.new"; return 74; }
    got=$(wc -c < "$program.new")
    if [ "$got" -ne "$size" ]; then
        rm -f "$program.new"
        echo "$got of $size bytes came" >&2
        return 74
    fi
    sum=$(sha256sum "$program.new" 2>/dev/null) && if [ "${sum%% *}" != "$digest" ]; then
        rm -f "$program.new"
        echo 'other bytes came than were sent' >&2
        return 74
    fi
    chmod 700 "$program.new" && mv "$program.new" "$program"
}
take || exit

# What every script of ours begins with. POSIX sh, and /proc.

# Reads who pid $1 is: its state, parent, group and start time. False where there is none.
stat_of() {
    st='' pp='' pg='' tk='' line=''
    { read -r line < "/proc/$1/stat"; } 2>/dev/null
    [ -n "$line" ] || return 1
    # The name may hold spaces and parentheses, so count from its last one.
    set -- ${line##*) }
    st=$1 pp=$2 pg=$3 tk=${20}
}

# Whether pid $1 is still the one that started at tick $2. A zombie is: its number is taken.
is_same() { stat_of "$1" && [ "$tk" = "$2" ]; }

is_alive() { is_same "$1" "$2" && [ "$st" != Z ] && [ "$st" != X ]; }

# Who listens on TCP port $1: the socket's inode, once for each. Nothing where nobody does.
listeners() {
    port=$(printf %04X "$1")
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        awk -v p=":$port" '$4 == "0A" && substr($2, length($2) - 4) == p { print $10 }'
}

# Names the process with socket inode $1, as far as this user may see it.
holder() {
    pid=$(ls -l /proc/[0-9]*/fd 2>/dev/null |
        awk -v s="socket:[$1]" '/^\/proc\// { split($1, d, "/") } $NF == s { print d[3]; exit }')
    [ -n "$pid" ] || return 0
    printf '%s (pid %s)' "$(cat "/proc/$pid/comm" 2>/dev/null)" "$pid"
}

# Looks for what is left of processes of one run on this host, and ends it where it is told to.
# Given: run, run_dir, grace (seconds), act (look or end), and one line for each process:
#   target ID PID TICKS BOOT PORTS
# PID, TICKS and BOOT are - where they were never recorded. Says, one line each, tab-separated:
#   left ID PIDS | end ID gone|term|kill|alive STRAYS PIDS | port ID PORT free|taken WHO | reused ID PID

boot_now=$(cat /proc/sys/kernel/random/boot_id)
t='	'
targets=''
kin=''
n=0

target() {
    n=$((n + 1))
    eval "id_$n=\$1 pid_$n=\$2 ticks_$n=\$3 boot_$n=\$4 ports_$n=\$5"
    targets="$targets $n"
}

load() { eval "id=\$id_$1 pid=\$pid_$1 ticks=\$ticks_$1 boot=\$boot_$1 ports=\$ports_$1"; }

# Living processes whose environment has the marks of this run and of process $id.
marked() {
    grep -laF "SCALEBEAM_RUN=$run" /proc/[0-9]*/environ 2>/dev/null | while IFS= read -r env; do
        p=${env#/proc/} p=${p%/environ}
        [ "$p" != "$$" ] || continue
        hits=$(tr '\0' '\n' < "$env" 2>/dev/null |
            grep -cxF -e "SCALEBEAM_RUN=$run" -e "SCALEBEAM_RUN_DIR=$run_dir" -e "SCALEBEAM_PROCESS=$id")
        [ "$hits" = 3 ] && stat_of "$p" && [ "$st" != Z ] && echo "$p"
    done
}

# Sets group (its number, or nothing), inside (living members) and strays (living ones outside). Who was
# found once stays ours in later looks (kin, as PID:TICKS): a child that left the group and overwrote its
# environment is known by its parent alone, which may end first.
survey() {
    group='' inside='' strays=''
    [ "$boot" = - ] || [ "$boot" = "$boot_now" ] || return 0
    ours=$(marked)
    for k in $kin; do
        case " $ours " in *[[:space:]]"${k%:*}"[[:space:]]*) continue ;; esac
        is_alive "${k%:*}" "${k#*:}" && ours="$ours ${k%:*}"
    done
    kin=''
    if [ "$pid" != - ]; then
        if is_same "$pid" "$ticks"; then group=$pid; fi
    fi
    for p in $ours; do
        stat_of "$p" || continue
        # A number stays taken while it has members: what is in it and ours keeps it ours.
        if [ "$pid" != - ]; then [ "$pg" = "$pid" ] && group=$pid
        elif [ "$pg" = "$p" ]; then group=$p
        fi
    done
    family=" $ours "
    grown=yes
    all=$(ls /proc | grep '^[0-9]*$')
    # Members of the group, and whatever descends from it or from a marked one.
    while [ "$grown" = yes ]; do
        grown=no
        for p in $all; do
            case "$family" in *[[:space:]]"$p"[[:space:]]*) continue ;; esac
            stat_of "$p" || continue
            [ "$st" != Z ] && [ "$st" != X ] || continue
            if [ -n "$group" ] && [ "$pg" = "$group" ]; then family="$family$p " grown=yes; continue; fi
            case "$family" in *[[:space:]]"$pp"[[:space:]]*) family="$family$p " grown=yes ;; esac
        done
    done
    for p in $family; do
        [ "$p" != "$$" ] && stat_of "$p" || continue
        kin="$kin $p:$tk"
        if [ -n "$group" ] && [ "$pg" = "$group" ]; then inside="$inside $p"; else strays="$strays $p"; fi
    done
}

group_lives() {
    for p in $1; do
        stat_of "$p" && [ "$st" != Z ] && [ "$pg" = "$2" ] && return 0
    done
    return 1
}

any_lives() {
    for p in $1; do
        stat_of "$p" && [ "$st" != Z ] && return 0
    done
    return 1
}

# Waits until command $2.. is false, at most $1 tenths of a second.
wait_while() {
    left=$1; shift
    while "$@"; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 0.1
    done
}

end_one() {
    load "$1"
    survey
    if [ -z "$inside$strays" ]; then
        if [ "$pid" != - ] && [ "$boot" = "$boot_now" ] && stat_of "$pid" && [ "$tk" != "$ticks" ]; then
            printf 'reused%s%s%s%s\n' "$t" "$id" "$t" "$pid"
        fi
        printf 'end%s%s%sgone%s0%s\n' "$t" "$id" "$t" "$t" "$t"
        return
    fi
    how=term gone_strays=$(echo $strays | wc -w)
    if [ -n "$group" ]; then
        kill -s TERM -- "-$group" 2>/dev/null
        wait_while $((grace * 10)) group_lives "$inside" "$group"
        # Looked at anew: during the grace a number may have become somebody else's.
        survey
        if [ -n "$inside" ] && [ -n "$group" ]; then
            how=kill
            kill -s KILL -- "-$group" 2>/dev/null
            wait_while 100 group_lives "$inside" "$group"
        fi
    fi
    for signal in TERM KILL KILL; do
        survey
        [ -n "$inside$strays" ] || break
        [ "$gone_strays" -gt 0 ] || gone_strays=$(echo $strays | wc -w)
        for p in $inside $strays; do kill -s "$signal" "$p" 2>/dev/null; done
        wait_while 20 any_lives "$inside $strays"
    done
    survey
    [ -z "$inside$strays" ] || how=alive
    printf 'end%s%s%s%s%s%s%s%s\n' "$t" "$id" "$t" "$how" "$t" "$gone_strays" "$t" "$(echo $inside $strays)"
    for port in $ports; do
        tries=100
        while [ -n "$(listeners "$port")" ] && [ "$tries" -gt 0 ]; do sleep 0.1; tries=$((tries - 1)); done
        inode=$(listeners "$port" | head -n 1)
        if [ -z "$inode" ]; then state=free who=''; else state=taken who=$(holder "$inode"); fi
        printf 'port%s%s%s%s%s%s%s%s\n' "$t" "$id" "$t" "$port" "$t" "$state" "$t" "$who"
    done
}

look_at() {
    load "$1"
    survey
    [ -z "$inside$strays" ] || printf 'left%s%s%s%s\n' "$t" "$id" "$t" "$(echo $inside $strays)"
}

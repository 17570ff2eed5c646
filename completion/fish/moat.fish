# fish completion for moat(1). As completion/bash/moat: verbs and flags are read from moat's own help; only what a flag's value may be is
# written down here.

# The words before the cursor: sets verb, root, count of operands, the flag that waits for its value, or where a command of its own begins.
function __moat_parse --no-scope-shadowing
    set -l words (commandline -opc)
    set moat $words[1]
    set verb ''
    set root
    set waiting ''
    set operands 0
    set command_at 0
    set -l only_operands ''
    set -l i 2
    while test $i -le (count $words)
        set -l word $words[$i]
        if test -n "$verb"; and test "$word" = --; and test -z "$only_operands"
            set only_operands 1
            # What follows is the host's command.
            if test "$verb" = do
                set command_at (math $i + 1)
                return
            end
        else if string match -q -- '-*' $word; and test -z "$only_operands"
            string match -q -- '--root=*' $word; and set root --root (string replace -- --root= '' $word)
            if __moat_takes_value $word "$verb"
                set i (math $i + 1)
                if test $i -gt (count $words)
                    set waiting $word
                    return
                end
                test "$word" = --root; and set root --root $words[$i]
            end
        else if test -z "$verb"
            set verb $word
        else if test "$verb" = do
            set command_at $i
            return
        else
            set operands (math $operands + 1)
        end
        set i (math $i + 1)
    end
end

function __moat_takes_value
    switch $argv[1]
        case --root --platform --debug-log --log --log-format --cgroup-manager --criu --bundle -b --pid-file
        case --rootfs-virtiofs --console-socket --preserve-fds --network --host-fifo --host-uds --overlay --cwd --rootfs --process -p
        case --user -u --additional-gids -g --env -e --cap -c --apparmor --process-label --interval --resources -r --name --prefix
        case --shared-dir --socket --cache --queues --dax-window -o --format '--memory*' --pids-limit --l3-cache-schema
        case --mem-bw-schema --cgroup '--cpu*' --blkio-weight '--kernel-memory*'
        case -f
            contains -- "$argv[2]" list ps
            return
        case --rootless
            test "$argv[2]" != spec
            return
        case '*'
            return 1
    end
    # --flag=value has it.
    not string match -q -- '*=*' $argv[1]
end

function __moat_value
    switch $argv[1]
        case --root --bundle -b --cwd --rootfs --prefix --shared-dir
            __fish_complete_directories $argv[2] ''
        case --platform
            printf '%s\n' auto kvm systrap
        case --log-format
            printf '%s\n' text json
        case --format -f
            printf '%s\n' table json
        case --cgroup-manager
            printf '%s\n' cgroupfs systemd disabled
        case --rootless
            printf '%s\n' auto true false
        case --cache
            printf '%s\n' auto none always
        case --host-fifo
            printf '%s\n' none open
        case --host-uds
            printf '%s\n' none open create all
        case --overlay
            printf '%s\n' none root:memory all:memory
        case --network
            printf '%s\n' none host ns:
        case --debug-log --log --pid-file --console-socket --rootfs-virtiofs --process -p --resources -r --socket
            __fish_complete_path $argv[2]
    end
end

function __moat_operand --no-scope-shadowing
    switch $verb/$operands
        case start/0
            __moat_ids created
        case pause/0
            __moat_ids running
        case resume/0
            __moat_ids paused
        case exec/0 kill/0 delete/0 state/0 ps/0 wait/0 events/0 update/0 debug/0
            __moat_ids
        case kill/1
            kill -l | string split -n ' ' | string replace -r '^SIG' ''
        case debug/1
            printf '%s\n' objects tasks locks requests memory platform paths stacks strace-on strace-off
    end
end

# All containers, or those in one state.
function __moat_ids --no-scope-shadowing
    $moat $root list 2>/dev/null </dev/null | awk -v want="$argv[1]" 'NR > 1 && (want == "" || $3 == want) { print $1 }'
end

function __moat_complete
    __moat_parse
    set -l cur (commandline -ct)
    if test $command_at -gt 0
        __fish_complete_subcommand --fcs-skip=(math $command_at - 1)
    else if test -n "$waiting"
        __moat_value $waiting $cur
    else if string match -q -- '-*=*' $cur
        set -l flag (string replace -r -- '=.*' '' $cur)
        __moat_value $flag (string replace -- $flag= '' $cur) | string replace -r -- '^' $flag=
    else if string match -q -- '-*' $cur
        $moat (string split -n ' ' -- $verb) --help 2>/dev/null </dev/null | grep -E '^(Usage:|       moat |  -)' | grep -oE -- '--[a-z][a-z-]*' | sort -u
        echo -- --help
    else if test -z "$verb"
        $moat --help 2>/dev/null </dev/null | sed -n '/^Verbs:$/,/^$/s/^  \([a-z]*\)  */\1\t/p'
    else if test "$verb" = do
        __fish_complete_command
    else
        __moat_operand
    end
end

complete -c moat -f -a '(__moat_complete)'

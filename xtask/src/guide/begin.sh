# Runs as the first process in namespaces of its own: processes that it leaves end with it.
set -Ee -o pipefail
# Variables that a block sets are exported, for the next block and for other terminals.
set -a
DONE= WHERE=begin FILE= OUT=/dev/null EXPECT=
UNTIL_TIMEOUT_SECONDS=60

# Shows what the failed block printed, and the last lines of what still runs.
ended() {
    [ -z "$DONE" ] || exit 0
    echo "  FAILED: $WHERE"
    echo "$WHERE" >"$WORK/failed"
    sed 's/^/    | /' "$FILE"
    tail -n 40 "$OUT" | sed 's/^/    > /'
    for log in "$WORK"/*.terminal; do
        [ -e "$log" ] || continue
        echo "  the terminal of $(cat "$log.where") shows last:"
        tail -n 8 "$log" | cut -c 1-400 | sed 's/^/    > /'
    done
    exit 1
}
trap ended EXIT

begin() {
    FILE=$WORK/$1.sh OUT=$WORK/$1.out WHERE=$2 EXPECT=$3
}

printed() {
    if [ -n "$EXPECT" ] && ! grep -qF -- "$EXPECT" "$OUT"; then
        echo "  its output should contain: $EXPECT"
        return 1
    fi
}

until_so() {
    local deadline=$((SECONDS + UNTIL_TIMEOUT_SECONDS)) result
    while :; do
        set +e
        (set -e; source "$FILE") >"$OUT" 2>&1
        result=$?
        set -e
        if [ $result = 0 ] && { [ -z "$EXPECT" ] || grep -qF -- "$EXPECT" "$OUT"; }; then return 0; fi
        if [ $SECONDS -ge $deadline ]; then
            echo "  it did not succeed within $UNTIL_TIMEOUT_SECONDS s${EXPECT:+; its output should contain: $EXPECT}"
            return 1
        fi
        sleep 0.2
    done
}

fails() {
    local result
    set +e
    (set -e; source "$FILE") >"$OUT" 2>&1
    result=$?
    set -e
    if [ $result = 0 ]; then
        echo "  it should have failed, and succeeded"
        return 1
    fi
    printed
}

terminal() {
    OUT=$WORK/$(basename "$FILE" .sh).terminal
    echo "$WHERE" >"$OUT.where"
    bash -e "$FILE" >"$OUT" 2>&1 </dev/null &
}

# Name server, accounts and programs are those of this machine. What the guide writes is not.
ip link set lo up
# Addresses of a network that does not exist, for pages about several hosts.
for host in 1 2 3; do ip address add 10.0.0.$host/32 dev lo; done
mkdir "$WORK/etc" "$WORK/lib"
cp -a /etc/. "$WORK/etc"
rm -rf "$WORK/etc/qluster"
mount --bind "$WORK/etc" /etc
mount --bind "$WORK/lib" /var/lib
chmod 755 /var/lib
install -d -o postgres -g postgres /var/lib/postgresql
HOME=/var/lib/reader
mkdir $HOME
cd $HOME

# Runs inside of namespaces of its own, as their first process: what it leaves running ends with it.
set -Ee -o pipefail
# What a block sets is there for the next one, in other terminals as well.
set -a
DONE= WHERE=begin FILE= OUT=/dev/null EXPECT=
PATIENCE=60

# Tells what the block printed that failed, and what is running printed last.
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
        echo "  expected in what it prints: $EXPECT"
        return 1
    fi
}

until_so() {
    local deadline=$((SECONDS + PATIENCE)) result
    while :; do
        set +e
        (set -e; source "$FILE") >"$OUT" 2>&1
        result=$?
        set -e
        if [ $result = 0 ] && { [ -z "$EXPECT" ] || grep -qF -- "$EXPECT" "$OUT"; }; then return 0; fi
        if [ $SECONDS -ge $deadline ]; then
            echo "  not within $PATIENCE s${EXPECT:+, expected in what it prints: $EXPECT}"
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
        echo "  it was to fail, and did not"
        return 1
    fi
    printed
}

terminal() {
    OUT=$WORK/$(basename "$FILE" .sh).terminal
    echo "$WHERE" >"$OUT.where"
    bash -e "$FILE" >"$OUT" 2>&1 </dev/null &
}

# A name server, accounts and the programs are those of the machine; what the guide writes is not.
ip link set lo up
# Hosts of a network that is not there, for pages that speak of several.
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

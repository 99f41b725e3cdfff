# Runs as the first process in namespaces of its own: its mounts and its processes end with it.
#
# COMMANDS is run in a copy of ROOT, at CHECKOUT. Checkout and cargo's home are at the same paths there as on this
# machine, so that cargo knows what it has compiled. All that is written goes to WORK.
set -e

# What is below $1 appears at $2 in the root; changes are kept in $WORK/$3.
overlay() {
    mkdir -p "$2" "$WORK/$3" "$WORK/$3.work"
    mount -t overlay -o "lowerdir=$1,upperdir=$WORK/$3,workdir=$WORK/$3.work" qluster "$2" || {
        echo "no overlay can be mounted whose files are in $WORK: choose a directory on a disk by TMPDIR"
        exit 1
    }
}

NEW=$WORK/merged
overlay "$ROOT" "$NEW" root
overlay "$CHECKOUT" "$NEW$CHECKOUT" checkout
overlay "$CARGO_HOME" "$NEW$CARGO_HOME" cargo
mkdir -p "$NEW$SYSROOT"
mount --bind -o ro "$SYSROOT" "$NEW$SYSROOT"
mount -t proc proc "$NEW/proc"
mount --rbind /dev "$NEW/dev"
# PostgreSQL's shared memory goes with this.
mount -t tmpfs qluster "$NEW/dev/shm"

# Names are looked up and packages are fetched as on this machine.
cp -L /etc/resolv.conf /etc/hosts "$NEW/etc/"
rm -rf "$NEW/etc/apt"
cp -a /etc/apt "$NEW/etc/apt"
mkdir -p "$NEW/usr/share/keyrings"
cp -a /usr/share/keyrings/. "$NEW/usr/share/keyrings/"

# What a C compiler or libclang has made for these crates is made again.
for crate in $AGAIN; do
    rm -rf "$NEW$CHECKOUT"/target/debug/build/"$crate"-[0-9a-f]* "$NEW$CHECKOUT"/target/debug/.fingerprint/"$crate"-[0-9a-f]*
done

cp "$COMMANDS" "$NEW/commands.sh"
export PATH="$SYSROOT/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME=/root
chroot "$NEW" bash -c 'cd "$CHECKOUT" && bash -ex /commands.sh'

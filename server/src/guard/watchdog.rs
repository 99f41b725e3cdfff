//! The watchdog: a device that resets the machine unless it is kicked. So a primary does not go on serving if its machine
//! hangs, or if its guard was killed together with the daemon.
//!
//! Opening the device arms it. Any byte except `V` kicks it, and a `V` right before it is closed disarms it. If it is closed
//! without that, as when its process is killed, it goes on counting: the next guard opens and kicks it (the kernel's
//! documentation, "The Linux Watchdog driver API").
//!
//! Its timeout is read and not set: that would take an ioctl, and so `unsafe`. A FIFO is kicked, too, for whatever reads it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;

use super::error::WatchdogError;

/// Device number of `/dev/watchdog`. It has no own entry among the watchdogs: it is the first of them.
const FIRST_WATCHDOG: (u32, u32) = (10, 130);

/// The byte that kicks, and the one that disarms when the device is closed next.
const KICK: &[u8] = b"k";
const DISARM: &[u8] = b"V";

/// An armed watchdog.
pub(super) struct Watchdog {
    device: PathBuf,
    file: File,
}

/// What the kernel says about a watchdog, if it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Traits {
    /// Seconds after the last kick until it resets the machine.
    timeout: Option<u64>,
    /// Whether it cannot be disarmed.
    forever: bool,
}

impl Watchdog {
    /// Arms the watchdog. If its timeout is too long for `node_timeout`, that is an error with `strict`; otherwise it is
    /// returned beside the watchdog, as a note.
    pub(super) fn arm(
        device: &Path,
        node_timeout: Duration,
        strict: bool,
    ) -> Result<(Self, Option<WatchdogError>), WatchdogError> {
        let traits = look_at(device)?;
        // Checked before the device is opened, since that arms it.
        let doubt = judge(device, traits, node_timeout);
        let doubt = match doubt {
            Err(error @ WatchdogError::Slow { .. }) if !strict => Some(error),
            other => other.map(|()| None)?,
        };
        let mut watchdog = Self::open(device)?;
        watchdog.kick()?;
        Ok((watchdog, doubt))
    }

    fn open(device: &Path) -> Result<Self, WatchdogError> {
        let failed = |source| WatchdogError::Open { device: device.to_owned(), source };
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let file = OpenOptions::new().write(true).custom_flags(flags).open(device).map_err(failed)?;
        Ok(Self { device: device.to_owned(), file })
    }

    /// Whether it is this device.
    pub(super) fn is(&self, device: &Path) -> bool {
        self.device == device
    }

    /// Disarms a watchdog that a killed process may have left armed, unless another process holds it.
    pub(super) fn release(device: &Path) -> Result<(), WatchdogError> {
        // A watchdog that cannot be disarmed was never armed. Opening it now would arm it.
        if look_at(device)?.forever {
            return Ok(());
        }
        match Self::open(device) {
            Ok(watchdog) => watchdog.disarm(),
            // It is held under another of its names.
            Err(WatchdogError::Open { source, .. }) if source.kind() == std::io::ErrorKind::ResourceBusy => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes it start counting again.
    pub(super) fn kick(&mut self) -> Result<(), WatchdogError> {
        self.write(KICK)
    }

    /// Disarms it.
    pub(super) fn disarm(mut self) -> Result<(), WatchdogError> {
        self.write(DISARM)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), WatchdogError> {
        let failed = |source| WatchdogError::Kick { device: self.device.clone(), source };
        self.file.write_all(bytes).map_err(failed)
    }
}

/// What is known about a device. An error if it is not a watchdog.
fn look_at(device: &Path) -> Result<Traits, WatchdogError> {
    let failed = |source| WatchdogError::Open { device: device.to_owned(), source };
    let about = std::fs::metadata(device).map_err(failed)?;
    if about.file_type().is_fifo() {
        return Ok(Traits::default());
    }
    let (major, minor) = (rustix::fs::major(about.rdev()), rustix::fs::minor(about.rdev()));
    let known = about.file_type().is_char_device().then(|| traits(Path::new("/sys"), (major, minor)));
    known.flatten().ok_or_else(|| WatchdogError::Odd { device: device.to_owned() })
}

/// The longest useful timeout, in seconds. It counts from the last kick, which may be a moment before the deadline. Then the
/// guard tries to end the database, which may take a quarter of the node timeout. A guard that the machine runs late must
/// not be taken for one that hangs. The kernel counts in seconds.
fn longest(node_timeout: Duration) -> u64 {
    node_timeout.as_secs() + u64::from(node_timeout.subsec_nanos() > 0) + 1
}

fn judge(device: &Path, traits: Traits, node_timeout: Duration) -> Result<(), WatchdogError> {
    let (device, longest) = (device.to_owned(), longest(node_timeout));
    match traits {
        Traits { forever: true, .. } => Err(WatchdogError::Forever { device }),
        Traits { timeout: Some(timeout), .. } if timeout > longest => {
            Err(WatchdogError::Slow { device, timeout, longest })
        }
        _ => Ok(()),
    }
}

/// What the kernel says about the character device with this number. None if it is not a watchdog.
fn traits(sys: &Path, number: (u32, u32)) -> Option<Traits> {
    let dir = match number {
        FIRST_WATCHDOG => sys.join("class/watchdog/watchdog0"),
        (major, minor) => {
            let dir = sys.join(format!("dev/char/{major}:{minor}"));
            let class = std::fs::read_link(dir.join("subsystem")).ok()?;
            class.ends_with("watchdog").then_some(dir)?
        }
    };
    // Some kernels are built without these files.
    let read = |name| std::fs::read_to_string(dir.join(name)).ok()?.trim().parse::<u64>().ok();
    Some(Traits { timeout: read("timeout"), forever: read("nowayout").is_some_and(|value| value != 0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_must_fire_soon_and_be_disarmed_again() {
        let seconds = Duration::from_secs_f64;
        let known = |timeout, forever| Traits { timeout: Some(timeout), forever };
        for (traits, node_timeout, expected) in [
            (Traits::default(), seconds(1.0), None),
            (known(2, false), seconds(1.0), None),
            (known(3, false), seconds(1.0), Some("3 s after the last kick, expected at most 2 s")),
            (known(3, false), seconds(1.2), None),
            (known(60, false), seconds(10.0), Some("expected at most 11 s")),
            (known(1, true), seconds(1.0), Some("nowayout=0")),
        ] {
            let error = judge(Path::new("/dev/watchdog"), traits, node_timeout).err().map(|error| error.to_string());
            let as_expected = match (&error, expected) {
                (None, None) => true,
                (Some(error), Some(expected)) => error.contains(expected) && error.contains("/dev/watchdog"),
                _ => false,
            };
            assert!(as_expected, "{traits:?} {node_timeout:?}: {error:?}");
        }
    }

    #[test]
    fn what_the_kernel_tells_is_read() {
        let sys = tempfile::tempdir().unwrap();
        let (class, other) = (sys.path().join("class/watchdog/watchdog0"), sys.path().join("class/mem/null"));
        std::fs::create_dir_all(&class).unwrap();
        std::fs::create_dir_all(&other).unwrap();
        std::fs::create_dir_all(sys.path().join("dev/char")).unwrap();
        std::fs::write(class.join("timeout"), "15\n").unwrap();
        std::fs::write(class.join("nowayout"), "0\n").unwrap();
        for (dir, class, number) in [(&class, "watchdog", "248:0"), (&other, "mem", "1:3")] {
            std::os::unix::fs::symlink(sys.path().join("class").join(class), dir.join("subsystem")).unwrap();
            std::os::unix::fs::symlink(dir, sys.path().join("dev/char").join(number)).unwrap();
        }
        let expected = Some(Traits { timeout: Some(15), forever: false });
        for (number, expected) in [(FIRST_WATCHDOG, expected), ((248, 0), expected), ((1, 3), None), ((9, 9), None)] {
            assert_eq!(traits(sys.path(), number), expected, "{number:?}");
        }
        std::fs::write(class.join("nowayout"), "1\n").unwrap();
        assert_eq!(traits(sys.path(), FIRST_WATCHDOG), Some(Traits { timeout: Some(15), forever: true }));
    }

    #[test]
    fn what_is_no_watchdog_is_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "kept").unwrap();
        for (device, expected) in [
            (file.as_path(), "is no watchdog"),
            (Path::new("/dev/null"), "is no watchdog"),
            (&dir.path().join("absent"), "cannot be opened"),
        ] {
            let error = Watchdog::arm(device, Duration::from_secs(1), false).err().unwrap().to_string();
            assert!(error.contains(expected) && error.contains(&*device.to_string_lossy()), "{error}");
        }
        assert_eq!(std::fs::read_to_string(file).unwrap(), "kept");
    }
}

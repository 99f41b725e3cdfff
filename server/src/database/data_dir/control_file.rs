//! What the files of a stopped database say about its WAL: the control file, timelines, and records.

use std::path::PathBuf;

use qluster_consensus::model::Lsn;

use super::programs::Programs;
use crate::database::error::{Error, Result};
use crate::formats::control::ControlData;
use crate::formats::timelines::{Timelines, history_file};
use crate::formats::wal::{first_record, place_of};
use crate::os;
use crate::os::files::Files;

/// The control file of a database, and what it leads to.
pub(crate) struct ControlFile {
    data_dir: PathBuf,
    programs: Programs,
    files: Files,
}

impl ControlFile {
    pub(super) fn new(data_dir: PathBuf, programs: Programs, files: Files) -> Self {
        Self { data_dir, programs, files }
    }

    /// Reads the control file, by pg_controldata.
    pub(crate) fn read(&self) -> Result<ControlData> {
        let program = self.programs.path("pg_controldata");
        let mut command = self.files.accounts.command(&program);
        command.arg("-D").arg(&self.data_dir).env("LC_ALL", "C");
        let output = command.as_std_mut().output();
        let output = output.map_err(|source| os::Error::Spawn { program: program.clone(), source })?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let program = "pg_controldata".into();
            return Err(os::Error::Program { program, status: output.status, output: text }.into());
        }
        Ok(ControlData::parse(&String::from_utf8_lossy(&output.stdout))?)
    }

    /// The timeline on which the WAL of this database ends, with its ancestors. No process of the database runs.
    pub(crate) fn timelines(&self) -> Result<Timelines> {
        let control = self.read()?;
        self.past_of(control.timeline.max(control.recovers_on).unwrap_or(1))
    }

    /// Whether the last checkpoint is on the timeline on which the WAL of this database ends.
    pub(crate) fn has_checkpointed(&self) -> Result<bool> {
        let control = self.read()?;
        Ok(control.timeline >= control.recovers_on)
    }

    /// The first record of a timeline that begins at `begin`: its file in `pg_wal`, its offset in that file, and its bytes.
    /// None if the file is not there any more.
    pub(crate) fn wal_at(&self, timeline: u32, begin: Lsn) -> Result<Option<(String, u64, Vec<u8>)>> {
        let Some(segment) = self.read()?.segment else { return Ok(None) };
        let (file, offset) = place_of(timeline, begin, segment);
        let (offset, length) = first_record(offset);
        let mut bytes = vec![0; length];
        let path = self.data_dir.join("pg_wal").join(&file);
        let read =
            std::fs::File::open(&path).and_then(|wal| std::os::unix::fs::FileExt::read_at(&wal, &mut bytes, offset));
        match read {
            Ok(count) => bytes.truncate(count),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(os::Error::file("read", &path)(error).into()),
        }
        Ok(Some((file, offset, bytes)))
    }

    /// A timeline of this database, with its ancestors.
    pub(crate) fn past_of(&self, timeline: u32) -> Result<Timelines> {
        if timeline <= 1 {
            return Ok(Timelines::parse(timeline, "")?);
        }
        let path = self.data_dir.join("pg_wal").join(history_file(timeline));
        // pg_rewind would not find it either.
        let missing = || Error::Hopeless(format!("{} is missing", path.display()));
        Ok(Timelines::parse(timeline, &self.files.read(&path)?.ok_or_else(missing)?)?)
    }
}

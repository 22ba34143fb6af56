//! What the status shows in addition to the exposition, as of the last commit.

use crate::archive::{self, ArchiveState};
use crate::config::Config;
use crate::counters::port_names::PortTable;
use crate::counters::totals::Totals;
use crate::exposition::{ArchiveHealth, Exposition, SensorInfo};
use crate::kernel::{GENERIC_MERGES, Kernel, Mode};
use crate::ledger::{self, Ledger, Today};
use crate::shown::{Inputs, Note, Status};
use crate::system::clock;
use jiff::Timestamp;
use std::sync::{Arc, Mutex, PoisonError};

fn set_attachments(info: &mut SensorInfo, attachments: impl Iterator<Item = (String, Mode)>) {
    (info.interfaces, info.xdp_modes) =
        attachments.map(|(name, mode)| (name, mode.name().to_owned())).unzip();
}

/// What is to be said of conversations that could not be kept.
fn flow_failures(failures: u64) -> Option<Note> {
    (failures > 0).then(|| {
        Note::new(
            format!(
                "{failures} conversations of this host were not kept, because there were too many; \
                 their answers count as backscatter or accesses"
            ),
            format!(
                "本ホストの通信 {failures} 件は、多すぎたため記録されていません。その応答はバックスキャッタまたはアクセスとして\
                 数えられます"
            ),
        )
    })
}

/// What the pins' file system means for the time after this process.
fn pins_note(warning: String) -> Note {
    Note::new(
        warning,
        "ピンの bpffs がこのホストのマウント名前空間にないため、デーモン終了後のパケットは計数されないおそれがあります",
    )
}

fn archive_health(archive: &ArchiveState) -> ArchiveHealth {
    ArchiveHealth {
        failing: archive.failing.is_some(),
        files: archive.files,
        bytes: archive.bytes,
        dropped_files: archive.dropped.files,
        dropped_bytes: archive.dropped.bytes,
        dropped_packets: archive.dropped.packets,
    }
}

/// What keeps the archive from being what it should.
fn archive_notes(archive: &ArchiveState) -> impl Iterator<Item = Note> + use<> {
    let failing = archive.failing.as_ref().map(|error| {
        Note::new(
            format!("the archive lacks what is drained, which the ledger counts as lost to it: {error}"),
            "アーカイブに書き込めません。台帳の計数は続いており、欠けたパケット数も数えられます",
        )
    });
    let unkept = archive.unkept.as_ref().map(|error| {
        Note::new(
            format!("files of the archive are not merged or bounded: {error}"),
            "アーカイブのファイルの統合または削除ができません。書き込みは続いています",
        )
    });
    failing.into_iter().chain(unkept)
}

/// What the status shows in addition to the exposition.
#[derive(Default)]
pub(super) struct LastCommit(Mutex<CommitView>);

#[derive(Default)]
struct CommitView {
    info: SensorInfo,
    totals: Arc<Totals>,
    today: Option<Today>,
    since: Option<Timestamp>,
    /// What holds as long as the daemon runs.
    standing: Vec<Note>,
    notes: Vec<Note>,
    archive: Option<archive::WatchedArchive>,
}

impl LastCommit {
    /// Before the first commit.
    pub(super) fn new(
        config: &Config,
        kernel: &Kernel,
        exposition: &Exposition,
        archive: Option<archive::WatchedArchive>,
    ) -> Self {
        let mut info = SensorInfo {
            sensor: config.sensor_name.clone(),
            timezone: config.timezone_name().to_owned(),
            interfaces: Vec::new(),
            xdp_modes: Vec::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: env!("TEITEN_REVISION").to_owned(),
        };
        set_attachments(&mut info, kernel.attachments().map(|(name, _, mode)| (name.to_owned(), mode)));
        exposition.health().set_sensor(&info);
        let standing: Vec<Note> = kernel.keeper().warning().map(pins_note).into_iter().collect();
        Self(Mutex::new(CommitView {
            info,
            notes: standing.clone(),
            standing,
            archive,
            ..CommitView::default()
        }))
    }

    /// Shows these totals, which the ledger held at the start.
    pub(super) fn set_totals(&self, totals: Arc<Totals>) {
        self.with(|shown| shown.totals = totals);
    }

    fn with<T>(&self, work: impl FnOnce(&mut CommitView) -> T) -> T {
        // Plain values, whole after every statement: a panic elsewhere does not spoil them.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over what a commit has changed.
    pub(super) fn committed(
        &self,
        ledger: &Ledger,
        totals: &Arc<Totals>,
        attachments: &[(String, Mode)],
        exposition: &Exposition,
        watch: &ledger::Verifier,
    ) {
        exposition.health().set_ledger_lacking(!ledger.losses().is_empty());
        let today = ledger.today();
        let archive = self.with(|shown| shown.archive.clone());
        // Whole after every statement.
        let archive = archive.map(|state| state.lock().unwrap_or_else(PoisonError::into_inner).clone());
        if let Some(archive) = &archive {
            exposition.health().set_archive(archive_health(archive));
        }
        let notes: Vec<Note> = attachments
            .iter()
            .filter(|(_, mode)| *mode == Mode::Generic)
            .map(|(name, _)| {
                Note::new(
                    format!("{name} is observed in generic mode: it costs more per packet, and {GENERIC_MERGES}"),
                    format!(
                        "{name} は generic モードで観測しています。パケット当たりの負荷が高く、結合されたパケット（GRO、LRO など）は \
                         1 件として数えられます"
                    ),
                )
            })
            .chain(exposition.health().untracked().into_iter().map(|name| {
                Note::new(
                    format!("it is not known what {name} sends; answers count as backscatter and accesses"),
                    format!(
                        "{name} からの送信を把握できません。応答はバックスキャッタまたはアクセスとして数えられます"
                    ),
                )
            }))
            .chain(flow_failures(exposition.health().flow_failures()))
            .chain(watch.notes().into_iter().map(|note| {
                Note::new(note, "台帳に破損があります。`teiten ledger verify` が該当する日を示します")
            }))
            .chain(archive.iter().flat_map(archive_notes))
            .chain(ledger.losses().iter().map(|loss| {
                Note::new(loss, "台帳の一部が失われています。該当する期間の計数は不足しています")
            }))
            .collect();
        self.with(|shown| {
            let mut info = shown.info.clone();
            set_attachments(&mut info, attachments.iter().cloned());
            if info != shown.info {
                exposition.health().set_sensor(&info);
                shown.info = info;
            }
            shown.totals = Arc::clone(totals);
            shown.today = today;
            shown.since = ledger.since();
            shown.notes = shown.standing.iter().cloned().chain(notes).collect();
        });
    }

    /// The status as of now.
    pub(super) fn status(&self, exposition: &Exposition, ports: &PortTable) -> Status {
        self.with(|shown| {
            Status::new(Inputs {
                info: &shown.info,
                totals: &shown.totals,
                today: shown.today.as_ref(),
                ports,
                health: exposition.health(),
                since: shown.since,
                notes: &shown.notes,
                now: Timestamp::now(),
                instant: clock::now(),
            })
        })
    }
}

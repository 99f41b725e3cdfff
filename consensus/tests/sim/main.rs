//! The real consensus on a simulated network, clock, disk and database: a seed decides everything.
//!
//! `SIM_SEEDS` and `SIM_SEED` tell how many seeds, and from which on; `cargo xtask sim` sets them.

#![cfg(feature = "simulation")]
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but not in the functions that tests share.

mod check;
mod clients;
mod database;
mod directed;
#[path = "../support/disk.rs"]
mod disk;
mod faults;
mod history;
mod network;
mod node;
mod plots;
mod sabotages;
mod seeds;
mod world;

use std::cell::{Cell, RefCell};

use check::{Checked, Invariant, Violation};

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether a rule is broken on purpose: then a panic is what is looked for, and nothing to print.
    static BENT: Cell<bool> = const { Cell::new(false) };
}

/// Tells whether the history that this thread runs breaks a rule on purpose.
pub fn bent(bent: bool) {
    BENT.set(bent);
}

/// Notes the panics of tasks, which are caught, for the simulation of this thread.
pub fn watch_panics() {
    if let (Ok(filter), Some(_)) = (std::env::var("SIM_LOG"), std::env::var_os("SIM_SEED")) {
        let _ = tracing_subscriber::fmt().with_env_filter(filter).without_time().try_init();
    }
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let line = || info.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            PANIC.with_borrow_mut(|panic| {
                panic.get_or_insert_with(line);
            });
            if std::env::var_os("RUST_BACKTRACE").is_some() && !BENT.get() {
                usual(info);
            }
        }));
    });
}

/// Whether something has panicked since this was asked last.
pub fn panicked() -> Checked {
    match PANIC.take() {
        Some(how) => Err(Violation::new(Invariant::NothingPanics, how)),
        None => Ok(()),
    }
}

//! What a simulation replaces: the clock, chance, who observes, rules that can be broken on purpose; and locks.

pub mod clock;
pub(crate) mod lock;
pub(crate) mod observers;
pub mod random;
pub mod sabotage;

//! What a simulation replaces: the clock, chance, the observers, and rules that it breaks on purpose. And locks.

pub mod clock;
pub(crate) mod lock;
pub(crate) mod observers;
pub mod random;
pub mod sabotage;

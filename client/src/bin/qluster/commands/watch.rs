//! The command `watch`: the status, live.

use std::collections::VecDeque;
use std::io::Write;
use std::time::{Duration, Instant};

use crossterm::terminal::{
    Clear, ClearType, DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen,
};
use crossterm::{cursor, execute, queue};
use futures::StreamExt;
use qluster_client::model::{Event, LogIndex};

use super::events::line;
use super::status::{Line, Overview, look, overview, render};
use crate::failure::Failure;
use crate::output::{Format, Style};
use crate::session::Session;

/// A shorter interval has no use: nobody sees changes faster.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
/// How many events are kept: more than a screen has lines.
const KEPT_EVENTS: usize = 200;

/// The screen to draw on. When it is dropped, the terminal shows its former text again.
struct Screen(std::io::Stdout);

/// What is shown.
struct View {
    overview: Overview,
    /// Since when no node answers; `None` if one does.
    silent: Option<Instant>,
    events: VecDeque<Event>,
}

/// Shows the status and the events until the user interrupts it. If the output is no terminal, the status is printed
/// whenever it changes.
pub(super) async fn run(session: &Session, interval: Duration) -> Result<(), Failure> {
    let live = session.out.terminal && session.out.format == Format::Table;
    let mut view = View { overview: overview(session).await?, silent: None, events: VecDeque::new() };
    let past = session.cluster.events(None, Some(KEPT_EVENTS as u32)).await?;
    let newest = past.last().map_or(LogIndex(0), |event| event.index);
    view.events.extend(past);
    let mut screen = live.then(Screen::enter).transpose()?;
    let mut coming = session.cluster.watch_events(newest);
    let mut ticks = tokio::time::interval(interval.max(SHORTEST_INTERVAL));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut printed = None;
    loop {
        match &mut screen {
            Some(screen) => screen.draw(&view, session.out.style).map_err(failed)?,
            None if printed.as_ref() != Some(&steady(&view.overview)) => {
                session.out.item(&view.overview, |style| render(&view.overview, style) + "\n")?;
                printed = Some(steady(&view.overview));
            }
            None => {}
        }
        tokio::select! {
            _ = ticks.tick() => {}
            // An event can change the table, so the nodes are asked again. If the credential is refused, the stream
            // ends; the table then says that no node answers.
            Some(event) = coming.next() => view.events.extend(event.ok()),
        }
        while view.events.len() > KEPT_EVENTS {
            view.events.pop_front();
        }
        match look(&session.cluster).await {
            Some(overview) => (view.overview, view.silent) = (overview, None),
            None => view.silent = view.silent.or_else(|| Some(Instant::now())),
        }
    }
}

/// The status without the positions, which change all the time.
fn steady(overview: &Overview) -> Overview {
    let mut overview = overview.clone();
    for database in overview.nodes.iter_mut().filter_map(|node: &mut Line| node.database.as_mut()) {
        (database.lag, database.lsn, database.replayed) = (None, None, None);
    }
    overview
}

impl Screen {
    fn enter() -> Result<Self, Failure> {
        let mut screen = Self(std::io::stdout());
        execute!(screen.0, EnterAlternateScreen, cursor::Hide, DisableLineWrap).map_err(failed)?;
        Ok(screen)
    }

    /// Draws line by line over the old text, because a screen that is cleared first flickers.
    fn draw(&mut self, view: &View, style: Style) -> std::io::Result<()> {
        let (columns, rows) = crossterm::terminal::size()?;
        let style = Style { width: Some(columns), ..style };
        queue!(self.0, cursor::MoveTo(0, 0))?;
        let lines = lines(view, style, rows.into());
        for (number, line) in lines.iter().enumerate() {
            // No line break after the last line: it would scroll the screen.
            let end = if number + 1 < lines.len() { "\r\n" } else { "" };
            write!(self.0, "{line}")?;
            queue!(self.0, Clear(ClearType::UntilNewLine))?;
            write!(self.0, "{end}")?;
        }
        queue!(self.0, Clear(ClearType::FromCursorDown))?;
        self.0.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If the terminal is gone, nobody can see the error.
        let _ = execute!(self.0, EnableLineWrap, cursor::Show, LeaveAlternateScreen);
    }
}

/// The lines for a screen of `rows` rows: the status, and below it the newest events that fit.
fn lines(view: &View, style: Style, rows: usize) -> Vec<String> {
    let mut lines: Vec<String> = render(&view.overview, style).lines().map(str::to_owned).collect();
    if let Some(since) = view.silent {
        lines.insert(0, format!("No node has answered for {} s. The last status:", since.elapsed().as_secs()));
    }
    lines.extend([String::new(), "Events (Ctrl-C ends):".into()]);
    lines.truncate(rows);
    let room = rows.saturating_sub(lines.len());
    let newest = view.events.iter().skip(view.events.len().saturating_sub(room));
    lines.extend(newest.map(line));
    lines
}

fn failed(source: std::io::Error) -> Failure {
    Failure::file("draw on the terminal", source)
}

#[cfg(test)]
mod tests {
    use qluster_client::model::Term;

    use super::*;

    fn view(events: u64, silent: Option<Instant>) -> View {
        let event = |index| -> Event {
            let json = serde_json::json!({"index": index, "time": "2026-01-31T12:00:00.123Z", "term": 7,
                "kind": "node-added", "node": 2, "cause": "why", "actor": "operator"});
            serde_json::from_value(json).unwrap()
        };
        let overview = Overview { leader: None, reason: None, term: Term(7), nodes: Vec::new() };
        View { overview, silent, events: (0..events).map(event).collect() }
    }

    const STYLE: Style = Style { colour: false, width: Some(200) };

    #[test]
    fn a_screen_shows_the_newest_events_that_it_has_room_for() {
        let shown = |events, rows| lines(&view(events, None), STYLE, rows);
        assert_eq!(shown(50, 24).len(), 24);
        assert_eq!(shown(2, 24).len(), shown(0, 24).len() + 2);
        assert_eq!(shown(50, 3).len(), 3);
        assert!(shown(0, 24)[0].starts_with("Nobody leads"));
    }

    #[test]
    fn a_screen_says_that_no_node_answers() {
        let lines = lines(&view(0, Some(Instant::now())), STYLE, 24);
        assert!(lines[0].starts_with("No node has answered for 0 s."), "{lines:?}");
    }
}

//! Ctrl-C: once to drain, seal and tear down; twice to do so at once. Others may ask as the user does.

use crate::exit::Failure;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How often the user asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Asked {
    /// Not at all.
    #[default]
    Not,
    /// Once: finish what is in flight, then take down.
    Once,
    /// Twice: give up what is in flight and take down without grace.
    Twice,
}

/// Who may ask to stop, and who listens.
pub(crate) type Signals = (watch::Sender<Asked>, watch::Receiver<Asked>);

/// Watches SIGINT, SIGTERM and SIGHUP from now on. Must be called on the runtime.
///
/// # Errors
/// When the system does not let them be watched.
pub(crate) fn watch() -> Result<Signals, Failure> {
    let (tx, rx) = watch::channel(Asked::Not);
    let on = |kind| {
        let watched = signal(kind);
        watched.map_err(|e| Failure::internal(format!("cannot watch for signals: {e}")))
    };
    let mut int = on(SignalKind::interrupt())?;
    let mut term = on(SignalKind::terminate())?;
    let mut hup = on(SignalKind::hangup())?;
    let ask = tx.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
                _ = hup.recv() => {}
            }
            tx.send_modify(|asked| {
                *asked = if *asked == Asked::Not { Asked::Once } else { Asked::Twice };
            });
            let asked = *tx.borrow();
            crate::printer::say(match asked {
                Asked::Twice => "interrupted again: giving up what is in flight, taking down now",
                _ => "interrupted: finishing what is in flight, then taking down (again: at once)",
            });
        }
    });
    Ok((ask, rx))
}

/// Returns once the user asked at least this much; never, where nobody can ask any more.
pub(crate) async fn reached(rx: &watch::Receiver<Asked>, level: Asked) {
    let mut rx = rx.clone();
    if rx.wait_for(|asked| *asked >= level).await.is_err() {
        std::future::pending::<()>().await;
    }
}

//! Ctrl-C: once to drain, seal and tear down; twice to do so at once. Others may ask as the user does.

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

/// Watches SIGINT, SIGTERM and SIGHUP from now on. Must be called on the runtime.
pub(crate) fn watch() -> std::io::Result<(watch::Sender<Asked>, watch::Receiver<Asked>)> {
    let (tx, rx) = watch::channel(Asked::Not);
    let mut int = signal(SignalKind::interrupt())?;
    let mut term = signal(SignalKind::terminate())?;
    let mut hup = signal(SignalKind::hangup())?;
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

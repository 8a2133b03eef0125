//! Rule 22, as the outside sees it: who is kept away from the others, and who is blamed.

use super::{expect::is_tried, *};
use crate::session::connection::timers::Timer;

/// A connection that was lost in a way that points at an operation.
pub(super) struct Loss {
    on: ConnectionId,
    is_strong: bool,
    carried: BTreeSet<u64>,
    /// What the current connection carried at that time.
    lived: BTreeSet<u64>,
}

impl History {
    /// A connection is about to be lost.
    pub(super) fn note_loss(&mut self, on: ConnectionId, cause: &Disconnect) {
        let model = &mut self.model;
        let Some(is_strong) = points_at_an_operation(cause) else {
            model.last_loss = None;
            return;
        };
        let live = |wire: &Wire| {
            let sent = wire.sent.values().copied();
            sent.filter(|id| model.live.contains(id)).collect::<BTreeSet<_>>()
        };
        let (carried, lived) = (live(&model.wires[on as usize]), live(&model.wires[0]));
        for id in &carried {
            *model.suspicious_losses.entry(*id).or_default() += 1;
        }
        if on == ConnectionId::A {
            model.searches += 1;
        }
        model.last_loss = Some(Loss { on, is_strong, carried, lived });
    }

    /// Those that ended over a lost connection while others go on were blamed for it.
    pub(super) fn check_blame(&self, lost: &[(u64, Disconnect)]) -> Checked {
        let model = &self.model;
        if model.live.is_empty() {
            return Ok(());
        }
        for (id, cause) in lost {
            let Some(loss_before) = &model.last_loss else {
                prop_assert!(false, "{} is blamed for {}", id, cause);
                return Ok(());
            };
            prop_assert!(!model.cleared.contains(id), "rule 22b: {} is cleared", id);
            prop_assert!(loss_before.carried.contains(id), "{} was not there", id);
            let is_alone = loss_before.on == ConnectionId::A || loss_before.carried.len() == 1;
            prop_assert!(is_alone, "rule 22d: {} was not alone: {:?}", id, loss_before.carried);
            let others = loss_before.lived.iter().filter(|other| *other != id).count();
            prop_assert!(others > 0, "rule 22f: nobody lived when {} was lost", id);
            // The first one was in company.
            let least = 1 + if loss_before.is_strong { 2 } else { 3 };
            let losses = model.suspicious_losses[id];
            prop_assert!(losses >= least, "{} is blamed after {} losses", id, losses);
        }
        Ok(())
    }

    pub(super) fn kept_away(&self) -> BTreeSet<u64> {
        self.model.live.iter().copied().filter(|&id| is_tried(&self.rig.session, id)).collect()
    }

    pub(super) fn check_quarantine(&self) -> Checked {
        let (session, model) = (&self.rig.session, &self.model);
        let tried = self.kept_away();
        for id in &tried {
            prop_assert!(!model.cleared.contains(id), "rule 22b: {} is cleared", id);
            prop_assert!(model.issued_ever.contains(id), "{} was never sent", id);
            prop_assert!(!model.mutations.contains(id), "rule 27: {} is not sent again", id);
        }
        prop_assert!(
            tried.is_empty() || model.live.len() > 1,
            "rule 22e: {:?} has nobody to protect",
            tried
        );
        // I6: something is waited for.
        let is_waited_for = session.other().is_some()
            || session.quarantine.due().is_some()
            || session.current().is_some_and(|it| it.timers.at(Timer::Settled).is_some());
        prop_assert!(
            tried.is_empty() || !session.is_open() || is_waited_for,
            "I6: nobody looks after {:?}",
            tried
        );
        Ok(())
    }
}

/// Whether a loss points at an operation strongly, or weakly (rule 22c).
fn points_at_an_operation(cause: &Disconnect) -> Option<bool> {
    match cause {
        Disconnect::Closed { code, .. } => match code.0 {
            1002 | 1009 | 4400 | 4500 | 4999 => Some(true),
            1000 | 1005 | 1006 | 1011 => Some(false),
            _ => None,
        },
        Disconnect::Reset(_) => Some(false),
        _ => None,
    }
}

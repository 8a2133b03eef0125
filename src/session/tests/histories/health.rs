//! Whether what is said is so, and whether all is well in the end.

use super::{super::super::Phase, *};

impl History {
    /// What is said of the connection is so.
    pub(super) fn check_status(&self) -> Checked {
        let Rig { session, .. } = &self.rig;
        let status = self.model.status.as_ref().unwrap_or(&Status::Idle);
        let is_so = match session.phase() {
            None if session.has_ended => true,
            None if session.is_paused => matches!(status, Status::Paused),
            None => matches!(status, Status::Idle),
            Some(Phase::Waiting) => matches!(status, Status::Waiting { .. }),
            Some(Phase::Authorizing | Phase::Dialing(_) | Phase::Opening(_)) => {
                matches!(status, Status::Connecting { .. })
            }
            Some(Phase::Open(_)) => matches!(status, Status::Open { .. }),
            // The driver's to say.
            Some(Phase::Closing(_)) => true,
        };
        prop_assert!(is_so, "{:?} while {:?}", status, session.phase());
        Ok(())
    }

    /// Whatever happened before: with a server that is well again, everything is sent, and nobody
    /// held back for good.
    pub(super) fn recover(&mut self) -> Checked {
        self.run(&Step::Hold(false))?;
        self.run(&Step::Resume)?;
        self.model.bad.clear();
        let until = self.rig.now + secs(900);
        while !self.is_well() {
            prop_assert!(
                self.rig.now < until,
                "{:?} {:?}",
                self.rig.session.phase(),
                self.rig.session.quarantine
            );
            self.run(&Step::Serve)?;
            let next =
                self.rig.session.poll_timeout().map_or(until, |at| at.clamp(self.rig.now, until));
            self.pass(u64::try_from((next - self.rig.now).as_millis()).unwrap() + 1)?;
            for on in ConnectionId::ALL {
                self.write(on, usize::MAX)?;
            }
        }
        Ok(())
    }

    /// Every operation that waits for nothing of its own is sent.
    fn is_well(&self) -> bool {
        let Rig { session, .. } = &self.rig;
        let due = |id: u64| self.model.watch.waits_for_nothing(id);
        let all_sent = session
            .operations
            .iter()
            .all(|it| !due(it.id) || session.operations.is_on(it.id, session.current));
        all_sent && (self.model.live.is_empty() || session.is_open())
    }
}

//! An operation that is alone has nobody to protect: the verdict table decides (rule 22e).

use super::*;
use crate::session::{Verdict, VerdictHook};

/// The only operation, over which the server closes every connection.
fn lone(hook: Option<VerdictHook>, cause: &Disconnect) -> World {
    let mut world = World::new(Config { on_disconnect: hook, ..config() }, Answers::Never);
    world.subscribe_bad(cause);
    world
}

#[test]
fn a_lone_operation_is_not_quarantined_and_the_table_decides() {
    for cause in weak().into_iter().chain([closed(4500)]) {
        let mut world = lone(None, &cause);
        world.pass(secs(3_600));
        assert_eq!(world.ends, [], "{cause}: a network does that, and a server that is down");
        assert!(world.losses.len() > 100 && world.lost_trials == 0, "{cause}");
    }
    for cause in [closed(4400), closed(1002)] {
        let mut world = lone(None, &cause);
        assert!(world.reach(|world| !world.ends.is_empty()));
        assert!(world.rig.now - world.losses[0] >= secs(300), "{cause}: refusal_grace");
        assert_eq!((world.ended(), world.lost_trials), (vec![1], 0), "{cause}");
    }
    for cause in [closed(1009), Disconnect::MessageTooBig { limit: 1 }] {
        let mut world = lone(None, &cause);
        assert!(world.reach(|world| !world.ends.is_empty()));
        assert_eq!((world.losses.len(), world.lost_trials), (1, 0), "{cause}: its own doing");
    }
}

#[test]
fn a_lone_operation_is_retried_as_often_as_the_application_says() {
    for cause in strong().iter().chain(&weak()) {
        let hook = VerdictHook::new(|_, _| Verdict::Retry);
        let mut world = lone(Some(hook), cause);
        assert!(world.reach(|world| world.losses.len() == 40), "{cause}");
        assert_eq!((&*world.ends, world.lost_trials), (&[][..], 0), "{cause}");
        assert_eq!(world.quarantined(), [0; 0], "{cause}");
        world.server.bad.clear();
        assert!(world.reach(World::all_are_carried), "{cause}");
    }
}

#[test]
fn who_is_alone_in_the_end_leaves_quarantine() {
    for cause in [closed(4500), closed(4400)] {
        let mut world = World::with_cleared(config(), 1);
        world.subscribe_bad(&cause);
        assert!(
            world.reach(|world| !world.quarantined().is_empty() && world.rig.session.is_open())
        );
        world.rig.cancel(1);
        assert_eq!(world.quarantined(), [0; 0]);
        assert!(!world.rig.session.quarantine.is_active());
        world.pass(secs(60));
        assert_eq!((&*world.ends, world.quarantined().len()), (&[][..], 0), "{cause}");
        assert!(world.losses.len() > 2, "it is sent on the current connection");
    }
}

#[test]
fn the_applications_word_that_all_is_lost_needs_no_quarantine_and_ends_one() {
    for when in 0..2 {
        let asked = std::sync::atomic::AtomicU32::new(0);
        let hook = VerdictHook::new(move |_, _| {
            let is_now = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == when;
            if is_now { Verdict::Fatal } else { Verdict::Default }
        });
        let mut world =
            World::new(Config { on_disconnect: Some(hook), ..config() }, Answers::Never);
        world.subscribe_bad(&closed(4500));
        world.subscribe_all(3);
        if when == 1 {
            assert!(world.reach(|world| world.quarantined().len() == 4 && world.lost_trials == 1));
            world.lose(closed(1012));
        }
        assert!(world.reach(|world| !world.ends.is_empty()));
        assert_eq!(world.ended(), [1, 2, 3, 4]);
        assert!(!world.rig.session.quarantine.is_active(), "nothing is left of it");
        let next = world.rig.subscribe();
        assert!(world.reach(|world| world.is_carried(next)));
        assert!(world.all_are_carried());
    }
}

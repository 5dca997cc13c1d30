//! The connections of a worker, for what looks at all of them.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
};

use super::activity::Activity;

/// The activities of all connections of a worker.
#[derive(Debug, Default)]
pub(super) struct Registry {
    // Weak, so that a connection that ends does not have to find itself here: the sweep forgets it.
    activities: RefCell<Vec<Weak<Activity>>>,
}

impl Registry {
    pub(super) fn add(&self, activity: &Rc<Activity>) {
        self.activities.borrow_mut().push(Rc::downgrade(activity));
    }

    /// Looks at every connection, and forgets those that have ended.
    pub(super) fn sweep(&self) {
        let mut activities = self.activities.borrow_mut();
        activities.retain(|activity| {
            let alive = activity.upgrade();
            if let Some(activity) = &alive {
                activity.sweep();
            }
            alive.is_some()
        });
        // What a burst of connections needed is given back once it is over.
        let (len, capacity) = (activities.len(), activities.capacity());
        if capacity > 64 && len < capacity / 4 {
            activities.shrink_to(len * 2);
        }
    }

    /// Finds the connections that have been quiet since the last time: they lose their room for a request.
    pub(super) fn settle(&self) {
        self.activities.borrow().iter().filter_map(Weak::upgrade).for_each(|activity| activity.settle());
    }

    /// Tells every connection that the process is on its way out.
    pub(super) fn drain(&self) {
        for activity in self.activities.borrow().iter().filter_map(Weak::upgrade) {
            activity.drain();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proxy::ticks::Ticks;

    #[test]
    fn connections_that_have_ended_are_forgotten() {
        let second = Duration::from_secs(1);
        let (ticks, registry) = (Rc::new(Ticks::new(second, second, second)), Registry::default());
        for _ in 0..1000 {
            registry.add(&Rc::new(Activity::new(Rc::clone(&ticks))));
        }
        registry.sweep();
        assert_eq!(registry.activities.borrow().len(), 0);
        assert!(registry.activities.borrow().capacity() < 100);
    }
}

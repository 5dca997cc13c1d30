//! Everything that the kernel tells something of, by the number that it tells it under.

use std::{
    net::TcpListener,
    ops::{Index, IndexMut},
    rc::Rc,
    sync::Arc,
};

use super::{
    caller::Caller,
    caller2::Caller2,
    origin::{Answers, Origin},
};

pub(super) enum Slot {
    Free,
    Listener { listener: TcpListener, answers: Rc<Answers>, tls: Option<Arc<rustls::ServerConfig>> },
    Origin(Origin),
    Caller(Caller),
    Caller2(Caller2),
}

impl Slot {
    /// Whether it is a caller.
    pub(super) fn asks(&self) -> bool {
        matches!(self, Self::Caller(_) | Self::Caller2(_))
    }
}

#[derive(Default)]
pub(super) struct Slots {
    all: Vec<Slot>,
    free: Vec<usize>,
}

impl Slots {
    pub(super) fn put(&mut self, slot: Slot) -> usize {
        if let Some(index) = self.free.pop() {
            self.all[index] = slot;
            return index;
        }
        self.all.push(slot);
        self.all.len() - 1
    }

    /// Closes what is there.
    pub(super) fn free(&mut self, index: usize) {
        if !matches!(self.all[index], Slot::Free) {
            self.all[index] = Slot::Free;
            self.free.push(index);
        }
    }
}

impl Index<usize> for Slots {
    type Output = Slot;

    fn index(&self, index: usize) -> &Slot {
        &self.all[index]
    }
}

impl IndexMut<usize> for Slots {
    fn index_mut(&mut self, index: usize) -> &mut Slot {
        &mut self.all[index]
    }
}

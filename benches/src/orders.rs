//! In which order targets have their turns.

/// The orders of targets, turn by turn: shuffled, the same ones in each run, and no target follows itself. Two take turns at being
/// first instead: a machine that gets slower all the time would otherwise be held against the second.
pub struct Orders {
    order: Vec<usize>,
    state: u64,
}

impl Orders {
    pub fn new(count: usize) -> Self {
        Self { order: (0..count).collect(), state: 0x9e37_79b9_7f4a_7c15 }
    }

    pub fn next(&mut self) -> &[usize] {
        if let [_, _] = self.order[..] {
            self.order.reverse();
            return &self.order;
        }
        let last = self.order.last().copied();
        for place in (1..self.order.len()).rev() {
            // Xorshift (Marsaglia, 2003).
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            self.order.swap(place, (self.state % (place as u64 + 1)) as usize);
        }
        if self.order.len() > 1 && self.order.first().copied() == last {
            self.order.rotate_left(1);
        }
        &self.order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_targets_take_turns_at_being_first() {
        let mut orders = Orders::new(2);
        assert_eq!([orders.next().to_vec(), orders.next().to_vec()], [[1, 0], [0, 1]]);
        assert!(Orders::new(0).next().is_empty());
    }

    #[test]
    fn no_target_follows_itself_and_each_follows_each_other_one() {
        for count in [3, 4, 7] {
            let mut orders = Orders::new(count);
            let mut followed = vec![vec![0; count]; count];
            let mut last = None;
            for _ in 0..96 {
                let order = orders.next().to_vec();
                for index in order {
                    if let Some(last) = last.replace(index) {
                        followed[index][last] += 1;
                    }
                }
            }
            for (index, after) in followed.iter().enumerate() {
                for (other, times) in after.iter().enumerate() {
                    assert_eq!(*times == 0, index == other, "{index} after {other}: {times} of {count}");
                }
            }
        }
    }
}

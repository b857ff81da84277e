//! Instances of two versions in one line.

use super::*;

#[test]
fn instances_of_two_versions_are_lent_each_in_its_own_manner() {
    let mut world = World::new(1, 100, KEPT).with_instances(1);
    world.concurrency = 3;
    world.admit();
    // The newer one is used last, and has two more seats. The older one has none.
    let first = world.any();
    assert_eq!(world.lent[&first].instance.concurrency, 3);
    let second = world.any();
    assert_eq!(world.lent[&second].instance.concurrency, 1);
    assert_eq!(world.line.room(), 2);
    world.any();
    world.any();
    assert_eq!((world.line.room(), world.waiting.len()), (0, 0));
    world.any();
    assert_eq!(world.waiting.len(), 1);
}

// Leaves the rows of a step with drafts behind: what follows works on one row, at the position of the last one that counts. Without
// drafts to come, the next step decodes the last token sampled. One thread.
KERNEL(settle) {
    Step& step = *a.frame.step;
    if (threadIdx.x != 0 || step.halt != 0) {
        return;
    }
    // A step that came after the end stays where it is.
    step.pos = most(step.pos + step.tokens + step.count, step.drafted + 2) - step.drafted - 2;
    step.tokens = 1;
    step.drafted = 0;
    if (a.p.drafts == 0) {
        step.pos += 1;
        a.ids[0] = last_taken(step);
    }
}

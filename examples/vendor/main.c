/* What the board's C code would be: it calls the Rust part and reports. */
#include <stdio.h>
#include <stdlib.h>

int rekindle_vendor_example(void);

/* Never called: nothing here unwinds. The precompiled core of Rust refers to it all the same. */
void rust_eh_personality(void) { abort(); }

int main(void) {
    int step = rekindle_vendor_example();
    if (step != 0) {
        fprintf(stderr, "failed at step %d\n", step);
        return 1;
    }
    puts("a damaged image refused; a sound one installed, started and confirmed; the next one too, over a power cut");
    return 0;
}

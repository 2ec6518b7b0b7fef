/* What the board's C code would be: it calls the Rust part and reports. */
#include <stdio.h>

int rekindle_vendor_example(void);

int main(void) {
    int step = rekindle_vendor_example();
    if (step != 0) {
        fprintf(stderr, "failed at step %d\n", step);
        return 1;
    }
    puts("ok");
    return 0;
}

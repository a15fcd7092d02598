// Lets the libraries run with glibc 2.28, as torch does, wherever they are compiled.

// libstdc++'s shared_ptr asks this variable of glibc 2.32 whether it may count without atomic instructions.
// Ours says no, which is always correct, and is seen by nothing outside the library.
extern "C" {
__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;
}

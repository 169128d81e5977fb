/* A region's sums in one read of each of its vectors: a template, filled in for what is asked of a region (source.py).

   The region is a matrix of n rows and m columns. Where columns are summed it is read BLOCK of them at a time, whose sums stay
   in the processor's first cache, and of each row PIECE entries at a time, while the next row's are fetched. Sums are of REAL within a block
   (rows) or SOME_ROWS rows (columns), and of double beyond.

   streams     of each vector, its first entry; within a row entries follow one another
   strides     from one row of it to the next
   targets     where copies go, in the same way
   totals      of each product, added to
   rows        (rows, n), added to
   columns     (columns, m), added to
   sums        room for as many REAL
   numbers     of an optimiser's step
   digests     of vectors' bits, each entry with its place's own odd number, added to
   origin      place of the first entry, of which a row has `row` */

#include <stdint.h>
#include <string.h>

#ifdef __clang__
#define FREELY _Pragma("clang loop vectorize(assume_safety)")
#else
#define FREELY _Pragma("GCC ivdep")
#endif
#define REAL $real
#define BITS $bits
#define FMA $fma
#define BLOCK 2048
#define PIECE 64
#define SOME_ROWS $some_rows
#define LINE 64
#define AHEAD 512

void $name(int64_t n, int64_t m, const REAL *const *streams, const int64_t *strides, REAL *const *targets,
           const int64_t *target_strides, double *totals, double *rows, double *columns, REAL *sums, const REAL *numbers, uint64_t *digests,
           int64_t origin, int64_t row)
{
    $constants
    for (int64_t first = 0; first < n; first += SOME_ROWS) {
        int64_t last = first + SOME_ROWS < n ? first + SOME_ROWS : n;
        memset(sums, 0, $n_columns * m * sizeof(REAL));
        for (int64_t at = 0; at < m; at += BLOCK) {
            int64_t width = m - at < BLOCK ? m - at : BLOCK;
            $column_pointers
            for (int64_t i = first; i < last; i++) {
                $pointers
                $accumulators
                const BITS place = (BITS)(origin + i * row + at);
                int64_t j = 0;
                for (; j + PIECE <= width; j += PIECE) {
                    for (int64_t l = 0; l < PIECE; l += LINE / (int64_t)sizeof(REAL)) {
                        $prefetches
                    }
                    FREELY
                    for (int64_t l = 0; l < PIECE; l++) {
                        const int64_t k = j + l;
                        $body
                    }
                }
                FREELY
                for (int64_t k = j; k < width; k++) {
                    $body
                }
                $results
            }
        }
        for (int64_t j = 0; j < $n_columns * m; j++)
            columns[j] += sums[j];
    }
}

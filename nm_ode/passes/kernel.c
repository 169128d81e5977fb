/* A region's sums in one read of each of its vectors.

   The region is a matrix of n rows and m columns; a row is taken BLOCK entries at a time, which lie in the processor's
   first cache for all products; the next are fetched meanwhile. Sums are of REAL within a block (rows) or SOME_ROWS
   rows (columns), and of double beyond. BLOCK is given when this is compiled; NAME and REAL are replaced before.

   streams     of each vector, its first entry; within a row entries follow one another
   strides     from one row of it to the next
   differences minuend and subtrahend, numbers of streams: the k-th is vector n_streams + k
   products    two vectors, and the number of the row of `columns` that takes its columns, or -1
   rows        (products, all_rows), from this part's first row on
   columns     (n_columns, m), added to
   copies      which vector; targets, target_strides: where to
   room        REAL: differences * BLOCK + n_columns * m */

#include <stdint.h>
#include <string.h>

#define LINE 64
#define SOME_ROWS 64

void NAME(int64_t n, int64_t m, int64_t all_rows, int64_t n_streams, const REAL **streams, const int64_t *strides,
          int64_t n_differences, const int64_t *differences, int64_t n_products, const int64_t *products, double *rows,
          int64_t n_columns, double *columns, int64_t n_copies, const int64_t *copies, REAL **targets, const int64_t *target_strides,
          REAL *room)
{
    REAL *sums = room + n_differences * BLOCK;
    const REAL *here[32];
    for (int64_t first = 0; first < n; first += SOME_ROWS) {
        int64_t last = first + SOME_ROWS < n ? first + SOME_ROWS : n;
        memset(sums, 0, n_columns * m * sizeof(REAL));
        for (int64_t i = first; i < last; i++)
            for (int64_t at = 0; at < m; at += BLOCK) {
                int64_t width = m - at < BLOCK ? m - at : BLOCK;
                for (int64_t k = 0; k < n_streams; k++) {
                    here[k] = streams[k] + i * strides[k] + at;
                    for (int64_t j = 0; j < width * (int64_t)sizeof(REAL); j += LINE)
                        __builtin_prefetch((const char *)(here[k] + BLOCK) + j);
                }
                for (int64_t k = 0; k < n_differences; k++) {
                    const REAL *after = here[differences[2 * k]], *before = here[differences[2 * k + 1]];
                    REAL *restrict made = room + k * BLOCK;
                    for (int64_t j = 0; j < width; j++)
                        made[j] = after[j] - before[j];
                    here[n_streams + k] = made;
                }
                for (int64_t k = 0; k < n_products; k++) {
                    const REAL *u = here[products[3 * k]], *v = here[products[3 * k + 1]];
                    REAL sum = 0;
                    if (products[3 * k + 2] >= 0) {
                        REAL *restrict by_column = sums + products[3 * k + 2] * m + at;
                        for (int64_t j = 0; j < width; j++) {
                            REAL product = u[j] * v[j];
                            sum += product;
                            by_column[j] += product;
                        }
                    } else
                        for (int64_t j = 0; j < width; j++)
                            sum += u[j] * v[j];
                    rows[k * all_rows + i] += sum;
                }
                for (int64_t k = 0; k < n_copies; k++)
                    memcpy(targets[k] + i * target_strides[k] + at, here[copies[k]], width * sizeof(REAL));
            }
        for (int64_t j = 0; j < n_columns * m; j++)
            columns[j] += sums[j];
    }
}

// output[m, n] = sum over k of input[m, k] * scale[k / 32, n] * q[k, n] (+ bias[n])
//
// The launch code puts `const ROWS_PER_THREAD: u32` in front of this text: the size of an array in
// registers cannot be an override constant. A workgroup of 16 x 16 threads computes a tile of
// 16 * ROWS_PER_THREAD rows and 64 columns; it walks k one block of 32 at a time, unpacking the
// block's weights once for all rows of the tile.

struct Shape {
    m: u32,
    k: u32,
    n: u32,
    // 1 when `bias` is to be added, else `bias` holds nothing of use.
    biased: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
// [m][k / 4]
@group(0) @binding(1) var<storage, read> input: array<vec4<f32>>;
// [n][k / 32][2], each vec4 sixteen signed bytes, the lowest first
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
// [n][k / 32]
@group(0) @binding(3) var<storage, read> scales: array<f32>;
// [n]
@group(0) @binding(4) var<storage, read> bias: array<f32>;
// [m][n]
@group(0) @binding(5) var<storage, read_write> output: array<f32>;

const SIDE: u32 = 16u;
const THREADS: u32 = SIDE * SIDE;
const COLUMNS_PER_THREAD: u32 = 4u;
const TILE_ROWS: u32 = SIDE * ROWS_PER_THREAD;
const TILE_COLUMNS: u32 = SIDE * COLUMNS_PER_THREAD;
// A block of 32 along k is 8 vectors of 4.
const BLOCK_VECTORS: u32 = 8u;

// [vector within the block][row of the tile]
var<workgroup> input_tile: array<vec4<f32>, BLOCK_VECTORS * TILE_ROWS>;
// [vector within the block][column of the tile]
var<workgroup> weight_tile: array<vec4<f32>, BLOCK_VECTORS * TILE_COLUMNS>;

fn load_input(thread: u32, first_row: u32, block: u32) {
    for (var at = thread; at < BLOCK_VECTORS * TILE_ROWS; at += THREADS) {
        let row = at / BLOCK_VECTORS;
        let vector = at % BLOCK_VECTORS;
        var value = vec4<f32>(0.0);
        if (first_row + row < shape.m) {
            value = input[(first_row + row) * (shape.k / 4u) + block * BLOCK_VECTORS + vector];
        }
        input_tile[vector * TILE_ROWS + row] = value;
    }
}

fn load_weights(thread: u32, first_column: u32, block: u32) {
    for (var at = thread; at < 2u * TILE_COLUMNS; at += THREADS) {
        let column = at / 2u;
        let half = at % 2u;
        var bytes = vec4<u32>(0u);
        var scale = 0.0;
        if (first_column + column < shape.n) {
            let place = (first_column + column) * (shape.k / 32u) + block;
            bytes = quants[place * 2u + half];
            scale = scales[place];
        }
        for (var word = 0u; word < 4u; word++) {
            weight_tile[(half * 4u + word) * TILE_COLUMNS + column] =
                vec4<f32>(unpack4xI8(bytes[word])) * scale;
        }
    }
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) tile: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let first_row = tile.y * TILE_ROWS;
    let first_column = tile.x * TILE_COLUMNS;
    let across = thread % SIDE;
    let down = thread / SIDE;
    var sums: array<array<f32, COLUMNS_PER_THREAD>, ROWS_PER_THREAD>;

    for (var block = 0u; block < shape.k / 32u; block++) {
        load_input(thread, first_row, block);
        load_weights(thread, first_column, block);
        workgroupBarrier();
        for (var vector = 0u; vector < BLOCK_VECTORS; vector++) {
            var weights: array<vec4<f32>, COLUMNS_PER_THREAD>;
            for (var j = 0u; j < COLUMNS_PER_THREAD; j++) {
                weights[j] = weight_tile[vector * TILE_COLUMNS + j * SIDE + across];
            }
            for (var i = 0u; i < ROWS_PER_THREAD; i++) {
                let value = input_tile[vector * TILE_ROWS + down * ROWS_PER_THREAD + i];
                for (var j = 0u; j < COLUMNS_PER_THREAD; j++) {
                    sums[i][j] += dot(value, weights[j]);
                }
            }
        }
        workgroupBarrier();
    }

    for (var i = 0u; i < ROWS_PER_THREAD; i++) {
        let row = first_row + down * ROWS_PER_THREAD + i;
        for (var j = 0u; j < COLUMNS_PER_THREAD; j++) {
            let column = first_column + j * SIDE + across;
            if (row < shape.m && column < shape.n) {
                var sum = sums[i][j];
                if (shape.biased == 1u) {
                    sum += bias[column];
                }
                output[row * shape.n + column] = sum;
            }
        }
    }
}

// Samples → rows → ratios. The only place that knows how a figure is summed up.

/** Cases in the order they are printed. `better` says which way is good. */
export const CASES = {
  prefill_short: { unit: 'tok/s', better: 'more' },
  prefill_long: { unit: 'tok/s', better: 'more' },
  decode: { unit: 'tok/s', better: 'more' },
  decode_busy: { unit: 'tok/s', better: 'more' },
  weights: { unit: 'GB/s', better: 'more' },
  load_ms: { unit: 'ms', better: 'less' },
  first_token_ms: { unit: 'ms', better: 'less' },
  peak_mib: { unit: 'MiB', better: 'less' },
  payload_br_bytes: { unit: 'bytes', better: 'less' },
};

export function median(values) {
  const v = [...values].sort((a, b) => a - b);
  const half = v.length >> 1;
  return v.length % 2 ? v[half] : (v[half - 1] + v[half]) / 2;
}

/** What is said of the times or rates of several runs. */
export function spread(values) {
  return { median: Math.round(median(values)), least: Math.round(Math.min(...values)), most: Math.round(Math.max(...values)) };
}

const round = (x) => (x >= 1000 ? Math.round(x) : Number(x.toPrecision(4)));

/** Collects samples by (contender, model, dtype, threads, case, clock) and the round they were taken in. */
export class Samples {
  #series = new Map();

  add(key, round, value, notes = {}) {
    if (!Number.isFinite(value)) return;
    const id = JSON.stringify([key.contender, key.model, key.dtype, key.threads, key.case, key.clock]);
    if (!this.#series.has(id)) this.#series.set(id, { key, by_round: new Map(), notes });
    this.#series.get(id).by_round.set(round, value);
  }

  /** Rates from what one completion took. Thread CPU time only says something where one thread is compared. */
  add_completion(key, round, t, { prefill, decode }) {
    const clocks = key.threads === 1 ? ['wall', 'cpu'] : ['wall'];
    for (const clock of clocks) {
      const part = clock === 'wall' ? 'ms' : 'cpu_ms';
      if (prefill) this.add({ ...key, case: prefill, clock }, round, (1000 * t.n_prompt) / t[`prefill_${part}`]);
      if (decode) this.add({ ...key, case: decode, clock }, round, (1000 * t.n_decode) / t[`decode_${part}`]);
    }
  }

  /** Rows of a contender that answered wrongly are refused: a fast wrong answer is not a figure. */
  refuse(contender) {
    for (const [id, s] of this.#series) if (s.key.contender === contender) this.#series.delete(id);
  }

  rows() {
    return [...this.#series.values()].map(({ key, by_round, notes }) => {
      const values = [...by_round.values()];
      return {
        contender: key.contender, model: key.model, dtype: key.dtype, threads: key.threads, case: key.case, clock: key.clock,
        n: values.length, min: round(Math.min(...values)), median: round(median(values)), max: round(Math.max(...values)),
        unit: CASES[key.case].unit, ...notes,
      };
    });
  }

  /** How many times better `ours` is than `peer` (> 1: ours ahead): the median over rounds of the ratio within a round, so that a burst
   * of other load, which hits neighbours in a round alike, cancels. NaN when they share no round. */
  times_better(ours, peer, key) {
    const series = (contender) => this.#series.get(JSON.stringify([contender, key.model, key.dtype, key.threads, key.case, key.clock]))?.by_round;
    const [a, b] = [series(ours), series(peer)];
    if (!a || !b) return NaN;
    const ratios = [...a].filter(([r]) => b.has(r)).map(([r, x]) => (CASES[key.case].better === 'more' ? x / b.get(r) : b.get(r) / x));
    return ratios.length ? median(ratios) : NaN;
  }

  /** The (model, dtype, threads) groups that hold samples, in the order measured. */
  groups() {
    const seen = new Map();
    for (const { key } of this.#series.values()) {
      const g = { model: key.model, dtype: key.dtype, threads: key.threads };
      seen.set(JSON.stringify(g), g);
    }
    return [...seen.values()];
  }
}

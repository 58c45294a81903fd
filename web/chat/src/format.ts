// Numbers as people read them.

export function bytes(n: number): string {
  if (n < 1000) return `${n} B`;
  const units = ['kB', 'MB', 'GB'];
  let value = n;
  let unit = -1;
  do {
    value /= 1000;
    unit++;
  } while (value >= 999.5 && unit < units.length - 1);
  return `${value < 9.95 ? value.toFixed(1) : value.toFixed(0)} ${units[unit]}`;
}

/** Both with the unit of the whole: "41 of 98 MB". */
export function bytesOf(done: number, total: number): string {
  if (!total) return bytes(done);
  const whole = bytes(total);
  const part = bytes(done);
  const unit = whole.slice(whole.indexOf(' '));
  return part.endsWith(unit) ? `${part.slice(0, -unit.length)} of ${whole}` : `${part} of ${whole}`;
}

export function duration(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
}

export const rate = (perSecond: number): string => (perSecond >= 99.5 ? perSecond.toFixed(0) : perSecond.toFixed(1));

export const count = (n: number): string => n.toLocaleString('en-US');

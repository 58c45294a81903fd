// What stays in this browser between visits. Storage may be full, forbidden or broken: the page works without it.

export function read<T>(key: string, fallback: T): T {
  try {
    const text = localStorage.getItem(`subbyte.${key}`);
    return text === null ? fallback : (JSON.parse(text) as T);
  } catch {
    return fallback;
  }
}

export function write(key: string, value: unknown): void {
  try {
    if (value === null) localStorage.removeItem(`subbyte.${key}`);
    else localStorage.setItem(`subbyte.${key}`, JSON.stringify(value));
  } catch {
    // Nothing is lost but the memory of it.
  }
}

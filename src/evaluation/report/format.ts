/** Shown where a figure is undefined or was not measured. */
export const NONE = '–';

/** A number for reading: about four significant digits, thousands separated, tiny and huge ones in powers of ten. */
export function formatNumber(value: number | null | undefined): string {
  if (value === null || value === undefined) return NONE;
  if (!Number.isFinite(value)) return String(value).replace('-', '−');
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e9)) {
    const [mantissa = '', exponent = ''] = value.toExponential(1).split('e');
    return minus(`${mantissa.replace('.0', '')}e${exponent.replace('+', '')}`);
  }
  if (Number.isInteger(value)) return minus(value.toLocaleString('en-US'));
  const digits = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : size >= 0.1 ? 3 : 4;
  return minus(value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits }));
}

/** With a plus sign for what is not negative. */
export function formatSigned(value: number): string {
  return value < 0 ? formatNumber(value) : `+${formatNumber(value)}`;
}

/** A share of 1 as a percentage with one decimal. */
export function formatPercent(value: number | null | undefined): string {
  if (value === null || value === undefined) return NONE;
  return `${minus((100 * value).toFixed(1))} %`;
}

/** `[low, high]` */
export function formatRange({ low, high }: { low: number; high: number }): string {
  return `[${formatNumber(low)}, ${formatNumber(high)}]`;
}

export function formatSeconds(seconds: number): string {
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  return hours > 0 ? `${hours} h ${minutes} min` : `${minutes} min ${rest} s`;
}

/** A setting's value on one line. */
export function formatSetting(value: unknown): string {
  if (value === undefined || value === null) return NONE;
  if (typeof value === 'string') return value;
  return JSON.stringify(value);
}

function minus(text: string): string {
  return text.replace('-', '−');
}

/** An ISO 8601 time for people, to the minute. */
export const timeForPeople = (iso: string): string => iso.replace(/T(\d\d:\d\d).*Z$/, ' $1 UTC');

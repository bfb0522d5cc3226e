/**
 * An error that a person can mend: what is wrong (with its value), where, and what to do.
 * The command line prints it as one message without a stack and exits with `exitCode`.
 */
export class UserError extends Error {
  /** Stable machine-readable name, for example `data.missing-column`. */
  readonly code: string;
  /** Where: a file, `file:row`, a config key, a tensor name. */
  readonly where: string | undefined;
  /** What to do about it. */
  readonly fix: string | undefined;
  /** 2: the input is wrong. 3: the machine lacks something. */
  readonly exitCode: 2 | 3;

  constructor(details: {
    code: string;
    message: string;
    where?: string;
    fix?: string;
    exitCode?: 2 | 3;
    cause?: unknown;
  }) {
    super(details.message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'UserError';
    this.code = details.code;
    this.where = details.where;
    this.fix = details.fix;
    this.exitCode = details.exitCode ?? 2;
  }
}

/** An error of the machine (memory, disk, device) rather than of the input: exit code 3. */
export function machineError(details: {
  code: string;
  message: string;
  where?: string;
  fix?: string;
  cause?: unknown;
}): UserError {
  return new UserError({ ...details, exitCode: 3 });
}

const UNITS = ['KiB', 'MiB', 'GiB', 'TiB'];

/** A number of bytes as messages say it: `812 bytes`, `3.50 KiB`, `293 MiB`. */
export function bytesText(bytes: number): string {
  if (bytes < 1024) return `${bytes} bytes`;
  let [size, unit] = [bytes / 1024, 0];
  for (; size >= 999.5 && unit < UNITS.length - 1; unit++) size /= 1024;
  return `${size >= 999.5 ? Math.round(size) : size.toPrecision(3)} ${UNITS[unit]!}`;
}

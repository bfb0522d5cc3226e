import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { sha256 } from './hash.js';
import { LOCK_FILE, lockFolder } from './lock.js';
import { ownIdentity, type ProcessIdentity } from './process-identity.js';

let folder: string;
const children: ChildProcess[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'duanzi-lock-'));
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

const path = () => join(folder, LOCK_FILE);
const locked = (): Error => expect.objectContaining({ code: 'run.locked', exitCode: 2, where: folder }) as Error;

/** Writes a lock as the process described would have left it, `age` seconds ago. */
function leave(changes: Partial<ProcessIdentity>, age = 0, within = folder): void {
  const file = join(within, LOCK_FILE);
  const holder = { ...ownIdentity(), ...changes, token: 'its own', since: '2026-01-01T00:00:00.000Z' };
  writeFileSync(file, JSON.stringify(holder));
  const then = Date.now() / 1000 - age;
  utimesSync(file, then, then);
}

/** A lock that was left is taken over, and the folder then is this process's. */
function expectTakeOver(): void {
  const lock = lockFolder(folder);
  expect(() => lockFolder(folder)).toThrow(locked());
  expect(readFileSync(path(), 'utf8')).not.toContain('its own');
  lock.release();
  expect(readdirSync(folder)).toEqual([]);
}

function expectRefusal(): void {
  const before = readFileSync(path(), 'utf8');
  expect(() => lockFolder(folder)).toThrow(locked());
  expect(readFileSync(path(), 'utf8')).toBe(before);
  expect(readdirSync(folder)).toEqual([LOCK_FILE]);
}

const deadPid = (): number => spawnSync(process.execPath, ['-e', '']).pid;

describe('lockFolder', () => {
  it('keeps a second one out until it is released', () => {
    const lock = lockFolder(folder);
    expectRefusal();
    lock.release();
    lock.release();
    expectTakeOver();
  });

  it('says who holds the folder and which file to remove', () => {
    const lock = lockFolder(folder);
    expect(() => lockFolder(folder)).toThrow(
      expect.objectContaining({
        message: expect.stringMatching(`process ${process.pid} on .+, since 20`) as string,
        fix: expect.stringContaining(path()) as string,
      }) as Error,
    );
    lock.release();
  });

  it('does not take away the lock of another process on release', () => {
    const lock = lockFolder(folder);
    leave({ pid: 1 });
    lock.release();
    expect(existsSync(path())).toBe(true);
  });
});

describe('a lock that was left behind', () => {
  it('by a process that is dead is taken over', () => {
    leave({ pid: deadPid() });
    expectTakeOver();
  });

  it('by a dead process whose number another one has now is taken over', () => {
    leave({ started: '1' });
    expectTakeOver();
  });

  it('before a reboot is taken over', () => {
    leave({ boot: 'another' }, 10 * 365 * 86400);
    expectTakeOver();
  });

  it('under another boot is respected while its file gives signs of life', () => {
    leave({ boot: 'another' }, 60);
    expectRefusal();
  });

  it.each<[string, Partial<ProcessIdentity>]>([
    ['machine', { host: 'elsewhere' }],
    ['container', { namespace: 'pid:[1]' }],
  ])('in another %s is respected while its file gives signs of life', (_, changes) => {
    leave({ pid: deadPid(), ...changes }, 60);
    expectRefusal();
    leave({ pid: deadPid(), ...changes }, 3600);
    expectTakeOver();
  });

  it('torn is respected at first and taken over later', () => {
    writeFileSync(path(), '{"pid":');
    expectRefusal();
    const before = Date.now() / 1000 - 3600;
    utimesSync(path(), before, before);
    expectTakeOver();
  });
});

it('of many processes that want a folder of a dead one at the same moment, one gets it', async () => {
  const script = join(folder, '..', `${String(process.pid)}-contender.mts`);
  const at = new URL('./lock.ts', import.meta.url).href;
  writeFileSync(
    script,
    `import { lockFolder } from ${JSON.stringify(at)};
     process.stdin.on('data', (folder) => {
       try { lockFolder(String(folder)); console.log('mine'); } catch (error) { console.log(error.code); }
     });
     setTimeout(() => {}, 60000);
     console.log('ready');`,
  );
  const dead = deadPid();
  try {
    const contenders = Array.from({ length: 5 }, () => {
      const child = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), script]);
      children.push(child);
      return { child, said: answers(child) };
    });
    for (const { said } of contenders) expect((await said.next()).value).toBe('ready');
    for (let round = 0; round < 30; round++) {
      const contested = join(folder, String(round));
      mkdirSync(contested);
      leave({ pid: dead }, 0, contested);
      for (const { child } of contenders) child.stdin.write(contested);
      const outcomes = await Promise.all(contenders.map(async ({ said }) => (await said.next()).value));
      expect(outcomes.sort()).toEqual(['mine', 'run.locked', 'run.locked', 'run.locked', 'run.locked']);
      expect(readdirSync(contested)).toEqual([LOCK_FILE]);
    }
  } finally {
    rmSync(script);
  }
});

it('is taken over also where a process died while it took it over', () => {
  leave({ pid: deadPid() });
  const marker = `.${LOCK_FILE}.tmp-0-${sha256(readFileSync(path(), 'utf8')).slice(0, 8)}`;
  copyFileSync(path(), join(folder, marker));
  expectTakeOver();
});

it('is left to the process that is taking it over', () => {
  leave({ pid: deadPid() });
  const marker = `.${LOCK_FILE}.tmp-0-${sha256(readFileSync(path(), 'utf8')).slice(0, 8)}`;
  const holder = { ...ownIdentity(), token: 'another', since: '2026-01-01T00:00:00.000Z' };
  writeFileSync(join(folder, marker), JSON.stringify(holder));
  expect(() => lockFolder(folder)).toThrow(locked());
});

async function* answers(child: ChildProcess): AsyncGenerator<string, undefined> {
  for (;;) yield String((await once(child.stdout!, 'data'))[0]).trim();
}

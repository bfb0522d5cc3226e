import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['tests/peer/**/*.test.ts'],
    pool: 'forks',
    // One Python with PyTorch at a time.
    maxWorkers: 1,
    testTimeout: 300_000,
    hookTimeout: 300_000,
  },
});

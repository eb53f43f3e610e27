"""p2psa/1 primitives (spec 07): keys, mask generator, Shamir sharing, packing, quantising, masking, applying.

Everything here is a pure function of its arguments; randomness comes in as bytes.
"""

"""What more than one service needs: records, messages, and the ports to bus, store and clock."""
